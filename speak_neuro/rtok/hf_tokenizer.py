"""A trained tokenizer as an object of transformers: text to ids and back, `AutoTokenizer` included.

    tokenizer = write_tokenizer(CharacterTokenizer.load("runs/rtok"), "tokenizer/")
    tokenizer("Hello world", "a pair", return_offsets_mapping=True)
    AutoTokenizer.from_pretrained("tokenizer/", trust_remote_code=True)

Files: the alphabet, the table and the neuron's constants (safetensors), the token strings in order of their ids. SPEAK
has no fixed vocabulary, so the list grows with every new token until `frozen`; then what is not in it is `<unk>`. Ids 0
to 3 are `<s> <pad> </s> <unk>` as in XLM-R, and only the tokenizer writes them: the letters "<s>" in a text are text.

Sequences are `<s> a </s>` and `<s> a </s></s> b </s>`. Pre-split words are units of their own. Offsets are those of the
raw text (within the word for pre-split words); special tokens and padding have (0, 0). With `return_word_ids=True`
there is a list `word_ids`, -1 at special tokens and padding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speak_neuro.alphabet import Alphabet
from speak_neuro.checkpoint import read_tensors, write_tensors
from speak_neuro.command import write_json
from speak_neuro.errors import MissingExtra, SpeakError
from speak_neuro.functional import gated_lif_scan
from speak_neuro.rtok.limits import Limits, tokens_of
from speak_neuro.rtok.normalise import normalise_with_spans
from speak_neuro.rtok.speak import CharacterTokenizer

try:
    from transformers import AddedToken, BatchEncoding, PreTrainedTokenizer
except ImportError:
    raise MissingExtra("transformers is not installed: pip install 'speak-neuro[hf]'") from None

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
FILES = {
    "alphabet_file": "speak_alphabet.json",
    "neuron_file": "speak_neuron.safetensors",
    "token_file": "speak_tokens.json",
}
CONSTANTS = ("decay", "gain", "threshold", "reset_potential", "reset_scale")
Offsets = list[tuple[int, int]]


def write_tokenizer(
    tokenizer: CharacterTokenizer, folder: str | os.PathLike[str], frozen: bool = False
) -> RTokTokenizer:
    """Write `tokenizer` into `folder`, its token list empty, and return the object."""
    path = Path(folder)
    neuron = tokenizer.boundary.neuron
    tensors = {name: getattr(neuron, name).float() for name in CONSTANTS}
    write_json(path / FILES["alphabet_file"], tokenizer.alphabet.to_json())
    write_tensors(path / FILES["neuron_file"], {"table": tokenizer.table(), **tensors}, {"mode": neuron.mode})
    write_json(path / FILES["token_file"], [])
    alphabet, table, tokens = (str(path / file) for file in FILES.values())
    made = RTokTokenizer(alphabet, table, tokens)
    made.save_pretrained(path)
    return made


class RTokTokenizer(PreTrainedTokenizer):  # type: ignore[misc]
    """See the top of this module."""

    vocab_files_names = FILES
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        alphabet_file: str,
        neuron_file: str,
        token_file: str,
        frozen: bool = False,
        longest_token: int = 32,
        **kwargs: Any,
    ) -> None:
        self.alphabet = Alphabet.from_json(_json(alphabet_file))
        tensors, about = read_tensors(Path(neuron_file))
        try:
            self._table = tensors["table"]
            self._neuron: dict[str, Any] = {name: tensors[name] for name in CONSTANTS}
            self._mode = about["mode"]
        except KeyError as error:
            raise SpeakError(f"{neuron_file}: {error} is missing; write it with write_tokenizer") from None
        if self._table.shape != (len(self.alphabet), 2):
            raise SpeakError(
                f"{neuron_file}: the table has shape {tuple(self._table.shape)}, the alphabet {len(self.alphabet)} "
                "characters; write both with write_tokenizer"
            )
        self._tokens: list[str] = list(_json(token_file))
        self._ids = {token: len(SPECIALS) + place for place, token in enumerate(self._tokens)}
        self.frozen = frozen
        self.limits = Limits(characters=longest_token)
        names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), SPECIALS, strict=True))
        self._added_tokens_decoder = {
            number: AddedToken(name, special=True, normalized=False) for number, name in enumerate(SPECIALS)
        }
        kwargs.pop("added_tokens_decoder", None)
        super().__init__(
            frozen=frozen,
            longest_token=longest_token,
            **{**names, "cls_token": SPECIALS[0], "sep_token": SPECIALS[2], **kwargs},
        )

    @property
    def vocab_size(self) -> int:
        """Special tokens and the token strings seen so far."""
        return len(SPECIALS) + len(self._tokens)

    def __len__(self) -> int:
        return self.vocab_size

    def get_vocab(self) -> dict[str, int]:
        """Ids by string; a text token that is written like a special one has an id but no entry."""
        return {**self._ids, **{name: number for number, name in enumerate(SPECIALS)}}

    def text_tokens(self, text: str) -> tuple[list[str], Offsets]:
        """The tokens of `text`, and the span of `text` that each comes from."""
        normalised, spans = normalise_with_spans(text)
        if not normalised:
            return [], []
        ids = torch.from_numpy(self.alphabet.encode(normalised).astype(np.int64))
        current, gate_logit = (lane.contiguous() for lane in self._table[ids].T[:, None])
        spikes = gated_lif_scan(current, gate_logit, mode=self._mode, **self._neuron).spikes[0].numpy() > 0
        tokens, _ = tokens_of(normalised, spikes, self.limits)
        offsets, start = [], 0
        for token in tokens:
            # The word sign stands for white space, which is no part of the word.
            first = start + (token.startswith("\u2581") and len(token) > 1)
            offsets.append((int(spans[first, 0]), int(spans[start + len(token) - 1, 1])))
            start += len(token)
        return tokens, offsets

    def token_id(self, token: str) -> int:
        """The id of a token of text; a new one gets the next id, or `<unk>` when frozen."""
        if token not in self._ids and not self.frozen:
            self._ids[token] = self.vocab_size
            self._tokens.append(token)
        return self._ids.get(token, SPECIALS.index("<unk>"))

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """The tokens of `text`."""
        return self.text_tokens(text)[0]

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return self.tokenize(text)

    def _convert_token_to_id(self, token: str) -> int:
        return self.token_id(token)

    def _convert_id_to_token(self, index: int) -> str:
        if not 0 <= index < self.vocab_size:
            raise SpeakError(f"id is {index}; allowed: 0 to {self.vocab_size - 1}")
        return SPECIALS[index] if index < len(SPECIALS) else self._tokens[index - len(SPECIALS)]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Normalised text: tokens joined, word signs as spaces."""
        return "".join(tokens).replace("\u2581", " ").strip(" ")

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the three files."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        paths = {name: Path(save_directory) / (prefix + file) for name, file in FILES.items()}
        write_json(paths["alphabet_file"], self.alphabet.to_json())
        write_tensors(paths["neuron_file"], {"table": self._table, **self._neuron}, {"mode": self._mode})
        write_json(paths["token_file"], self._tokens)
        return tuple(map(str, paths.values()))

    def _encode_plus(
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding_strategy: Any = None,
        truncation_strategy: Any = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: Any = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        return_word_ids: bool = False,
        **kwargs: Any,
    ) -> BatchEncoding:
        if stride or return_overflowing_tokens:
            raise SpeakError("stride and overflowing tokens are not supported; cut the text into parts first")
        truncation = getattr(truncation_strategy, "value", truncation_strategy) or "do_not_truncate"
        room = (max_length or self.model_max_length) if truncation != "do_not_truncate" else None
        batched = _is_batch(text, is_split_into_words)
        rows = []
        for first, second in _pairs(text, text_pair) if batched else [(text, text_pair)]:
            parts = [self._part(part, is_split_into_words) for part in (first, second) if part is not None]
            rows.append(_assemble(parts, add_special_tokens, room, truncation))
        fields = {"input_ids": [[token for token, _, _ in row] for row in rows]}
        more: dict[str, tuple[list[Any], Any]] = {}
        if return_offsets_mapping:
            more["offset_mapping"] = ([[offset for _, offset, _ in row] for row in rows], (0, 0))
        if return_word_ids:
            more["word_ids"] = ([[word for _, _, word in row] for row in rows], -1)
        if return_special_tokens_mask:
            more["special_tokens_mask"] = ([[int(token < 3) for token, _, _ in row] for row in rows], 1)
        if return_token_type_ids:
            more["token_type_ids"] = ([[0] * len(row) for row in rows], 0)
        padding = getattr(padding_strategy, "value", padding_strategy) or "do_not_pad"
        result = self.pad(
            fields,
            padding=padding,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_attention_mask=return_attention_mask,
        ).data
        side = padding_side or self.padding_side
        for name, (values, fill) in more.items():
            result[name] = [
                _padded(row, len(ids), fill, side) for row, ids in zip(values, result["input_ids"], strict=True)
            ]
        if return_length:
            result["length"] = [len(ids) for ids in result["input_ids"]]
        if not batched and return_tensors is None:
            result = {name: value[0] for name, value in result.items()}
        return BatchEncoding(result, tensor_type=return_tensors)

    def _part(self, text: Any, split: bool) -> list[tuple[int, tuple[int, int], int]]:
        words = text if split else [text]
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            wanted = "a list of words" if split else "a string"
            raise SpeakError(f"the text is {text!r}; allowed: {wanted}, or a batch of them")
        found = []
        for number, word in enumerate(words):
            tokens, offsets = self.text_tokens(word)
            found += [(self.token_id(t), offset, number) for t, offset in zip(tokens, offsets, strict=True)]
        return found


Entry = tuple[int, tuple[int, int], int]


def _is_batch(text: Any, split: bool) -> bool:
    if isinstance(text, str):
        return False
    return not split or (bool(text) and not isinstance(text[0], str))


def _pairs(texts: Any, others: Any) -> list[tuple[Any, Any]]:
    """The pairs of a batch; an item that is a tuple of two is a pair."""
    if others is not None:
        return list(zip(texts, others, strict=True))
    return [item if isinstance(item, tuple) and len(item) == 2 else (item, None) for item in texts]


def _assemble(parts: list[list[Entry]], specials: bool, room: int | None, truncation: str) -> list[Entry]:
    """One sequence of at most `room` tokens; the rest goes from the end of the longer part, or of the named one."""
    begin, end = ((SPECIALS.index(name), (0, 0), -1) for name in ("<s>", "</s>"))
    overhead = 2 * len(parts) if specials else 0
    if room is not None:
        lengths = [len(part) for part in parts]
        excess = sum(lengths) + overhead - room
        if excess > 0 and truncation in ("only_first", "only_second"):
            lengths[min(int(truncation == "only_second"), len(parts) - 1)] -= excess
        elif excess > 0:
            for _ in range(excess):
                lengths[lengths.index(max(lengths))] -= 1
        if min(lengths) < 0:
            raise SpeakError(f"max_length is {room}; allowed with {truncation}: room for what must stay")
        parts = [part[:length] for part, length in zip(parts, lengths, strict=True)]
    if not specials:
        return [entry for part in parts for entry in part]
    row = [begin, *parts[0], end]
    return [*row, end, *parts[1], end] if len(parts) > 1 else row


def _padded(row: list[Any], length: int, fill: Any, side: str) -> list[Any]:
    padding = [fill] * (length - len(row))
    return padding + row if side == "left" else row + padding


def _json(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpeakError(f"{path}: no such file; write the tokenizer with write_tokenizer") from None
    except ValueError as error:
        raise SpeakError(f"{path}: not valid JSON ({error}); write the tokenizer again") from None


RTokTokenizer.register_for_auto_class("AutoTokenizer")
