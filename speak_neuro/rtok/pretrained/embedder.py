"""Embeddings (N, D) of tokens, which are any substrings of normalised text.

    fvt(t)      = mean of embedding[p] over the pieces p of t           byte-level pieces; a run of bytes that are no
                                                                        pieces counts once, as <unk>
    hypernet(t) = ZettHypernet(form(t), language)                       form cut to 7 pieces

A token that is a piece keeps its own embedding under `fvt`. Specials are asked for by name (`special`) and are always
the encoder's own rows; a token of text that reads "<s>" is made of letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.byte_unigram import ByteUnigram
from speak_neuro.rtok.pretrained.encoder import PretrainedEncoder
from speak_neuro.rtok.pretrained.hypernet import ZettHypernet


@runtime_checkable
class TokenEmbedder(Protocol):
    """Gives tokens their embeddings. No gradient flows into them."""

    width: int
    by_language: bool
    """Whether the language changes anything."""

    def embed(self, tokens: Sequence[str], language: str) -> Tensor:
        """(N, width) float32, a row for each token."""
        ...

    def special(self, name: str) -> Tensor:
        """(width,) of "<s>", "</s>", "<pad>" and what else the vocabulary has."""
        ...


class _FromEncoder:
    """What both embedders take from the encoder."""

    def __init__(self, encoder: PretrainedEncoder, model: ByteUnigram | None, device: torch.device | str) -> None:
        self.model = model or ByteUnigram(encoder.pieces)
        self.width = encoder.width
        self.source = encoder.embedding.to(device)

    def special(self, name: str) -> Tensor:
        """(D,) the encoder's row of a special."""
        special = self.model.pieces.special
        if name not in special:
            raise ValueError(f"the special token is {name!r}; allowed: {', '.join(special)}")
        return self.source[special[name]]


class FvtEmbedder(_FromEncoder):
    """The mean of the constituent pieces' embeddings."""

    by_language = False

    def __init__(
        self, encoder: PretrainedEncoder, model: ByteUnigram | None = None, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(encoder, model, device)

    def embed(self, tokens: Sequence[str], language: str = "") -> Tensor:
        """(N, D)."""
        if not tokens:
            return self.source.new_empty(0, self.width)
        vocabulary, unknown = len(self.model.pieces), self.model.pieces.unknown
        flat: list[int] = []
        starts: list[int] = []
        for form in self.model.forms(tokens):
            starts.append(len(flat))
            for fallback, run in groupby(form, lambda number: number >= vocabulary):
                flat.extend([unknown] if fallback else run)
        device = self.source.device
        ids, offsets = torch.tensor(flat, device=device), torch.tensor(starts, device=device)
        return functional.embedding_bag(ids, self.source, offsets, mode="mean")


class HypernetEmbedder(_FromEncoder):
    """What the hypernetwork predicts: each different token once, forms of equal length together."""

    by_language = True
    BATCH = 2048
    """Tokens computed at once."""

    def __init__(
        self,
        hypernet: ZettHypernet,
        encoder: PretrainedEncoder,
        model: ByteUnigram | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(encoder, model, device)
        config = hypernet.config
        fits = (
            ("n_embd", config.n_embd, encoder.width),
            ("original_vocab_size", config.original_vocab_size, len(encoder.pieces)),
            ("hn_n_extra_tokens", config.hn_n_extra_tokens, self.model.fallbacks),
            ("pad_token_id", config.pad_token_id, self.model.pad),
        )
        for name, found, needed in fits:
            if found != needed:
                raise SpeakError(
                    f"the hypernetwork's {name} is {found}, the encoder {encoder.name} needs {needed}; use a "
                    "hypernetwork made for this encoder, or the embedder fvt"
                )
        self.hypernet = hypernet.to(device)

    def embed(self, tokens: Sequence[str], language: str) -> Tensor:
        """(N, D)."""
        index = self.hypernet.language(language)
        distinct = {token: place for place, token in enumerate(dict.fromkeys(tokens))}
        longest = self.hypernet.config.hn_surface_maxlen
        forms = [form[:longest] for form in self.model.forms(list(distinct))]
        by_length: dict[int, list[int]] = {}
        for place, form in enumerate(forms):
            by_length.setdefault(len(form), []).append(place)
        rows = self.source.new_empty(len(distinct), self.width)
        for places in by_length.values():
            for start in range(0, len(places), self.BATCH):
                some = places[start : start + self.BATCH]
                ids = torch.tensor([forms[place] for place in some], device=rows.device)
                rows[torch.tensor(some, device=rows.device)] = self.hypernet(ids, self.source, index)
        return rows[torch.tensor([distinct[token] for token in tokens], dtype=torch.long, device=rows.device)]


class CachedEmbedder:
    """Remembers the rows of an embedder, which never change: each token is computed once in a run.

    Rows lie in one tensor that grows by doubling. At `limit` rows all are forgotten.
    """

    def __init__(self, inner: TokenEmbedder, limit: int = 2_000_000) -> None:
        if limit < 1:
            raise ValueError(f"limit is {limit}; allowed: at least 1")
        self.inner = inner
        self.width = inner.width
        self.by_language = inner.by_language
        self.limit = limit
        self.computed = 0
        """Rows computed so far."""
        self._places: dict[tuple[str, str], int] = {}
        self._rows = inner.special("<s>").new_empty(0, self.width)

    def __len__(self) -> int:
        """Rows held."""
        return len(self._places)

    def special(self, name: str) -> Tensor:
        """The encoder's row of a special."""
        return self.inner.special(name)

    def embed(self, tokens: Sequence[str], language: str) -> Tensor:
        """(N, D)."""
        keys = [(language if self.by_language else "", token) for token in tokens]
        missing = [key for key in dict.fromkeys(keys) if key not in self._places]
        if len(self._places) + len(missing) > self.limit and self._places:
            self._places.clear()
            missing = list(dict.fromkeys(keys))
        if missing:
            self._add(missing, self.inner.embed([token for _, token in missing], language))
        self.computed += len(missing)
        places = torch.tensor([self._places[key] for key in keys], dtype=torch.long, device=self._rows.device)
        return self._rows[places]

    def _add(self, keys: list[tuple[str, str]], rows: Tensor) -> None:
        held = len(self._places)
        if held + len(keys) > len(self._rows):
            grown = rows.new_empty(max(1024, 2 * len(self._rows), held + len(keys)), self.width)
            grown[:held] = self._rows[:held]
            self._rows = grown
        self._rows[held : held + len(keys)] = rows
        self._places.update((key, held + number) for number, key in enumerate(keys))
