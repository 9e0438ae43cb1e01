"""Pieces learned from a text's contextual ranges, or from its tokens: byte-pair merges, then those that are used.

1. Merges (Sennrich et al. 2016) of bytes inside units, more than wanted: a merge made on the way to a longer piece is
   often not used by itself any more.
2. Three times: cut the units into the fewest pieces, and keep the pieces that are used most.
3. The same again with merges inside words beside those inside units; what leaves fewer ids of the text is taken.

The second step shortens the ids by 1 to 2 %, the third by 8 % in Vietnamese at 2,000 ids, where most pairs over the
border of two syllables are worth less than a syllable (experiments/LOG.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.table.pieces import Pieces, cut_units
from speak_neuro.table.scanner import padded
from speak_neuro.table.slots import LONGEST
from speak_neuro.table.vocabulary import BYTES
from speak_neuro.text.byte_alphabet import ALPHABET, raw_bytes, signs

SURPLUS = 1.15
"""Learned pieces for each that is kept."""
ROUNDS = 3
LEAST_FREQUENCY = 2
"""A pair that occurs once is no piece: it would serve the learned text alone."""
WORD = re.compile(rb" ?[^\s!-/:-@\[-`{-~]+| ?[!-/:-@\[-`{-~]+|\s+")
"""Letters of any script, or signs, with the space before them."""
BUFFER = 1 << 24
"""Bytes of units that are cut at once."""


def learn_pieces(units: Iterable[bytes], size: int, unit: str = "ranges") -> Pieces:
    """The pieces of at most `size` ids, the 256 bytes included; fewer where too little repeats."""
    if size < BYTES:
        raise ValueError(f"size is {size}; allowed: at least {BYTES}, one id for each byte")
    parts = [part for raw in units for part in cut_units(raw) if part]
    if not parts:
        raise SpeakError("the text to learn a vocabulary from is empty; give text")
    wanted = BYTES + round(SURPLUS * (size - BYTES))
    inside = merges(parts, wanted)
    words = merges([word for part in parts for word in WORD.findall(part)], wanted)
    made = [most_used(tokens, parts, size, unit) for tokens in (inside, list(dict.fromkeys(inside + words)))]
    return min(made, key=lambda pieces: int(usage(pieces, parts).sum()))


def most_used(tokens: Sequence[bytes], parts: Sequence[bytes], size: int, unit: str) -> Pieces:
    """Of `tokens` those that are used most when the parts are cut into the fewest, with the bytes at most `size`."""
    kept: list[int] = [0] * len(tokens)
    for left in range(ROUNDS - 1, -1, -1):
        pieces = Pieces(tuple(tokens), np.zeros(len(tokens), np.int64), unit)
        counts = usage(pieces, parts)[BYTES:].tolist()
        wanted = size - BYTES + (len(tokens) - (size - BYTES)) // 2 * (left > 0)
        order = sorted(range(len(tokens)), key=lambda t: (-counts[t], tokens[t]))[: max(wanted, 0)]
        tokens, kept = [tokens[t] for t in order], [counts[t] for t in order]
    return Pieces(tuple(tokens), np.array(kept, dtype=np.int64), unit)


def merges(parts: Sequence[bytes], size: int) -> list[bytes]:
    """At most `size` - 256 pieces of several bytes by byte-pair merges, in the order in which they are learned."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=LEAST_FREQUENCY,
        initial_alphabet=list(ALPHABET.values()),
        max_token_length=LONGEST,
        show_progress=False,
    )

    def lines() -> Iterator[str]:
        for first in range(0, len(parts), 1 << 12):
            some = parts[first : first + (1 << 12)]
            yield " ".join(map(signs, some))

    tokenizer.train_from_iterator(lines(), trainer)
    found = (left + right for left, right in json.loads(tokenizer.to_str())["model"]["merges"])
    return list(dict.fromkeys(map(raw_bytes, found)))


def usage(pieces: Pieces, parts: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """(V,) how often each id occurs in the parts' ids."""
    counts = np.zeros(len(pieces), np.int64)
    sizes = np.empty(0, np.int64)
    first = 0
    while first < len(parts):
        last, held = first, 0
        while last < len(parts) and held + len(parts[last]) <= BUFFER:
            held += len(parts[last])
            last += 1
        data = padded(b"".join(parts[first:last]))
        ends = np.zeros((last - first, 2), np.int32)
        ends[:, 0] = np.cumsum([len(part) for part in parts[first:last]])
        ids = np.empty(len(data), np.int32)
        count, _ = pieces.look_up(data, 0, ends, len(ends), -1, False, ids, sizes)
        counts += np.bincount(ids[:count], minlength=len(pieces))
        first = last
    return counts
