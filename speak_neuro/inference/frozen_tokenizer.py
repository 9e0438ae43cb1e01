"""A tokenizer of transformers over a fixed list of pieces: what its ids mean never depends on what it has seen.

    id 0..3                  <s> <pad> </s> <unk>, as in XLM-R
    id 4 ... 4 + n - 1       the n pieces of the vocabulary, strings of bytes, each once; the 256 bytes are among them
    after them               what `add_tokens` added

A piece's name is its bytes in GPT-2's printable alphabet, so names, ids and byte strings are in one-to-one relation,
and every text has ids. Nothing here changes with use: two processes, or one before and after, give the same ids, and a
data set's cache finds what was made before. A larger vocabulary is a new tokenizer: learn it, and write it.

What is not about pieces is transformers' own slow tokenizer: padding, truncation on either side, pairs, batches,
special tokens, `add_tokens`. Two things are added, which token classification needs: `return_offsets_mapping` (spans of
the raw text, of the word for pre-split words; (0, 0) at special tokens and padding), and `return_word_ids`, a list
`word_ids`, -1 at special tokens and padding. One thing is refused: truncation that cannot reach `max_length`.

Sequences are `<s> a </s>` and `<s> a </s></s> b </s>`. As everywhere in transformers the letters "<s>" in a text are
the special token, unless `split_special_tokens=True`, with which they are letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speak_neuro.errors import MissingExtra, SpeakError
from speak_neuro.text.byte_alphabet import signs

try:
    from transformers import AddedToken, BatchEncoding, PreTrainedTokenizer
except ImportError:
    raise MissingExtra("transformers is not installed: pip install 'speak-neuro[hf]'") from None

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
Span = tuple[int, int]


class Located(str):
    """A part of a text that knows where it lies; what transformers cuts from it knows that too."""

    start: int
    end: int
    word: int

    @classmethod
    def at(cls, text: str, start: int, end: int, word: int) -> Located:
        """`text`, from `start` to `end` of word number `word`."""
        made = cls(text)
        made.start, made.end, made.word = start, end, word
        return made

    def __getitem__(self, key: Any) -> Located:
        start, end, _ = key.indices(len(self)) if isinstance(key, slice) else slice(key, key + 1).indices(len(self))
        return Located.at(super().__getitem__(key), self.start + start, self.start + end, self.word)

    def lstrip(self, chars: str | None = None, /) -> Located:
        """As of a string."""
        return self[len(self) - len(super().lstrip(chars)) :]

    def rstrip(self, chars: str | None = None, /) -> Located:
        """As of a string."""
        return self[: len(super().rstrip(chars))]

    def __add__(self, other: str) -> Located:
        # transformers joins neighbours only: an added token that is a word of its own, and what touches it.
        return Located.at(super().__add__(other), self.start, self.start + len(self) + len(other), self.word)


class Placed(int):
    """An id that knows which part of the text it stands for."""

    span: Span
    word: int


class FrozenTokenizer(PreTrainedTokenizer):  # type: ignore[misc]
    """See the top of this module. A subclass gives the names of its pieces, and `pieces_of`."""

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(self, pieces: Sequence[bytes], **kwargs: Any) -> None:
        self._pieces = list(pieces)
        # A space is no sign of a byte: no other piece has the name of one that is written like a special token.
        self._names = [f"{name} (piece)" if name in SPECIALS else name for name in map(signs, pieces)]
        self._numbers = {name: len(SPECIALS) + place for place, name in enumerate(self._names)}
        if len(self._numbers) != len(self._names):
            raise SpeakError("a piece of the vocabulary occurs twice; allowed: each once")
        special = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), SPECIALS, strict=True))
        self._added_tokens_decoder = {
            number: AddedToken(name, special=True, normalized=False) for number, name in enumerate(SPECIALS)
        }
        fixed = {"special_tokens_pattern": "cls_double_sep", "token_type_ids_pattern": "all_zeros"}
        super().__init__(**{**special, "cls_token": SPECIALS[0], "sep_token": SPECIALS[2], **fixed, **kwargs})

    def pieces_of(self, text: str) -> tuple[list[int], list[Span]]:
        """Places in the vocabulary of the pieces of `text`, and the span of `text` that each comes from."""
        raise NotImplementedError

    def text_of(self, raw: bytes) -> str:
        """The text that joined pieces stand for; what is no UTF-8, such as a part of a character, is U+FFFD."""
        return raw.decode("utf-8", "replace")

    @property
    def vocab_size(self) -> int:
        """Special tokens and pieces; `len(tokenizer)` counts added tokens too."""
        return len(SPECIALS) + len(self._names)

    def get_vocab(self) -> dict[str, int]:
        """Ids by name."""
        return {**self._numbers, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        places, spans = self.pieces_of(str(text))
        if not isinstance(text, Located):
            return [self._names[place] for place in places]
        return [
            Located.at(self._names[place], text.start + start, text.start + end, text.word)
            for place, (start, end) in zip(places, spans, strict=True)
        ]

    def _convert_token_to_id(self, token: str) -> int:
        unknown: int = self.unk_token_id
        return self._numbers.get(token, unknown)

    def _convert_token_to_id_with_added_voc(self, token: str) -> int:
        number: int = super()._convert_token_to_id_with_added_voc(token)
        if isinstance(token, Located):
            number = Placed(number)
            number.span, number.word = (token.start, token.end), token.word
        return number

    def _convert_id_to_token(self, index: int) -> str:
        if not len(SPECIALS) <= index < self.vocab_size:
            raise SpeakError(f"id is {index}; allowed: 0 to {len(self) - 1}")
        return self._names[index - len(SPECIALS)]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of pieces and special tokens, joined."""
        return self.text_of(b"".join(map(self._bytes_of, tokens)))

    def _bytes_of(self, token: str) -> bytes:
        if token in self._added_tokens_encoder or token not in self._numbers:
            return token.encode("utf-8", "surrogatepass")
        return self._pieces[self._numbers[token] - len(SPECIALS)]

    def truncate_sequences(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        num_tokens_to_remove: int = 0,
        truncation_strategy: Any = "longest_first",
        stride: int = 0,
    ) -> tuple[list[int], list[int] | None, list[int]]:
        """As of any tokenizer, but too little room for what must stay is an error, not a longer sequence."""
        strategy = getattr(truncation_strategy, "value", truncation_strategy)
        first, second = len(ids), len(pair_ids or [])
        room = {"only_first": first, "only_second": second}.get(strategy, first + second)
        if num_tokens_to_remove > room:
            raise SpeakError(
                f"max_length is too small: {num_tokens_to_remove} tokens have to go, {strategy} can take {room}; raise "
                "max_length, or choose another truncation"
            )
        found: tuple[list[int], list[int] | None, list[int]] = super().truncate_sequences(
            ids, pair_ids, num_tokens_to_remove, truncation_strategy, stride
        )
        return found

    def _encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchEncoding:
        if not (options.get("return_offsets_mapping") or options.get("return_word_ids")):
            return super()._encode_plus(text, text_pair, **options)
        tensors = options.pop("return_tensors", None)
        batched = _is_batch(text, options.get("is_split_into_words", False))
        if batched:  # transformers calls this method again for each text, and then pads what it knows of
            found = super()._encode_plus(text, text_pair, **options).data
        else:
            found = self._encode_one(text, text_pair, options)
        side = options.get("padding_side") or self.padding_side
        for name, fill in (("offset_mapping", (0, 0)), ("word_ids", -1)):
            if name in found:
                rows, ids = (found[key] if batched else [found[key]] for key in (name, "input_ids"))
                filled = [_padded(row, len(numbers), fill, side) for row, numbers in zip(rows, ids, strict=True)]
                found[name] = filled if batched else filled[0]
        return BatchEncoding(found, tensor_type=tensors, prepend_batch_axis=not batched)

    def _encode_one(self, text: Any, text_pair: Any, options: dict[str, Any]) -> dict[str, Any]:
        """One text or pair with the places of its ids, which are read before padding makes them plain numbers."""
        split = options.get("is_split_into_words", False)
        later = ("padding_strategy", "pad_to_multiple_of", "padding_side", "return_attention_mask", "return_length")
        padding: dict[str, Any] = {name: options.get(name) for name in later}
        strategy, length = padding.pop("padding_strategy"), padding.pop("return_length")
        before = {**options, "padding_strategy": type(strategy)("do_not_pad"), "return_attention_mask": False}
        before |= {"pad_to_multiple_of": None, "padding_side": None, "return_length": False}
        found = super()._encode_plus(_located(text, split), _located(text_pair, split), **before).data
        places = [(number.span, number.word) if isinstance(number, Placed) else None for number in found["input_ids"]]
        for name in ("input_ids", "overflowing_tokens"):
            if name in found:
                found[name] = [int(number) for number in found[name]]
        padded = dict(self.pad(found, padding=strategy.value, max_length=options.get("max_length"), **padding))
        if options.get("return_offsets_mapping"):
            padded["offset_mapping"] = [place[0] if place else (0, 0) for place in places]
        if options.get("return_word_ids"):
            padded["word_ids"] = [place[1] if place else -1 for place in places]
        if length:
            padded["length"] = len(padded["input_ids"])
        return padded


def _is_batch(text: Any, split: bool) -> bool:
    """As transformers tells a batch from one text, one list of words or one of ids."""
    if not isinstance(text, (list, tuple)):
        return False
    if not text:
        return not split
    return isinstance(text[0], (list, tuple)) or (not split and isinstance(text[0], str))


def _located(text: Any, split: bool) -> Any:
    if isinstance(text, str):
        return Located.at(text, 0, len(text), 0)
    if split and isinstance(text, (list, tuple)):
        return [
            Located.at(word, 0, len(word), number) if isinstance(word, str) else word
            for number, word in enumerate(text)
        ]
    return text


def _padded(row: Sequence[Any], length: int, fill: Any, side: str) -> list[Any]:
    filled = [tuple(value) if isinstance(value, list) else value for value in row]
    padding = [fill] * (length - len(filled))
    return padding + filled if side == "left" else filled + padding
