"""Pieces learned from a text's contextual ranges, or from its tokens: byte-pair merges, then those that save most ids.

1. Candidates, more than wanted: merges (Sennrich et al. 2016) of bytes inside units; and merges inside SPEAK's tokens
   with joins of whole tokens, so that a piece over several tokens begins and ends where the neuron cut.
2. Until as many are left as are wanted: cut the units into the fewest pieces, and drop the tenth of the pieces that
   save least,

       saved(piece) = uses of the piece * (fewest other pieces that join to it - 1)

3. Of the two lists of candidates, what leaves fewer ids of the text is taken.

Joins are 9 % longer ids in Vietnamese at 2,000, where most pairs over the border of two syllables are worth less than a
syllable. Words instead of SPEAK's tokens, Unigram, and all candidates at once are worse (experiments/LOG.md).
"""

from __future__ import annotations

import itertools
import json
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
"""Learned pieces for each that is kept, in each list of candidates."""
KEPT = 0.9
"""The share of pieces that a round of dropping leaves."""
LEAST_FREQUENCY = 2
"""A pair that occurs once is no piece: it would serve the learned text alone."""
BUFFER = 1 << 24
"""Bytes of units that are cut at once."""
FIRST_SIGN = 0x20000
"""The code point that stands for the first token where whole tokens are merged."""
LONGEST_ROW = 64
"""Tokens that are merged as one row: merges of longer ones take hours."""


def learn_pieces(units: Iterable[Sequence[bytes]], size: int, unit: str = "ranges") -> Pieces:
    """The pieces of at most `size` ids, the 256 bytes included; fewer where too little repeats.

    Each unit is given as SPEAK's tokens in it.
    """
    if size < BYTES:
        raise ValueError(f"size is {size}; allowed: at least {BYTES}, one id for each byte")
    one: dict[bytes, bytes] = {}  # of equal tokens one object: a long text has few different ones
    given = [[one.setdefault(token, token) for token in tokens] for tokens in units]
    parts = [part for tokens in given for part in cut_units(b"".join(tokens)) if part]
    if not parts:
        raise SpeakError("the text to learn a vocabulary from is empty; give text")
    wanted = round(SURPLUS * (size - BYTES))
    candidates = [merges(parts, wanted)]
    if any(len(tokens) > 1 for tokens in given):
        inside = merges([token for tokens in given for token in tokens], wanted)
        candidates.append(list(dict.fromkeys(inside + joins(given, inside, wanted))))
    made = [most_saving(tokens, parts, size, unit) for tokens in candidates]
    return max(made, key=saved_ids)


def saved_ids(pieces: Pieces) -> int:
    """How many ids fewer than bytes the learned text has."""
    return sum(int(count) * (len(token) - 1) for token, count in zip(pieces.tokens, pieces.counts, strict=True))


def most_saving(tokens: Sequence[bytes], parts: Sequence[bytes], size: int, unit: str) -> Pieces:
    """Of `tokens` those that save most ids when the parts are cut into the fewest, with the bytes at most `size`."""
    wanted = size - BYTES
    while True:
        pieces = Pieces(tuple(tokens), np.zeros(len(tokens), np.int64), unit)
        uses = usage(pieces, parts)[BYTES:]
        if len(tokens) <= wanted:
            break
        saved = uses * (fewest_others(pieces) - 1)
        order = sorted(range(len(tokens)), key=lambda t: (-int(saved[t]), tokens[t]))
        tokens = [tokens[t] for t in order[: max(wanted, int(KEPT * len(tokens)))]]
    order = sorted(range(len(tokens)), key=lambda t: (-int(uses[t]), tokens[t]))
    return Pieces(tuple(tokens[t] for t in order), uses[order], unit)


def fewest_others(pieces: Pieces) -> npt.NDArray[np.int64]:
    """(V - 256,) how many other pieces at least join to each piece of several bytes."""
    from speak_neuro.table.trie import others

    found = np.empty(len(pieces.tokens), np.int64)
    offsets = np.cumsum([0, *map(len, pieces.tokens)], dtype=np.int64)
    others(np.frombuffer(b"".join(pieces.tokens), dtype=np.uint8), offsets, pieces.nodes, found)
    return found


def merges(parts: Sequence[bytes], most: int) -> list[bytes]:
    """At most `most` pieces of several bytes by byte-pair merges, in the order in which they are learned."""
    found = pair_merges([signs(part) for part in parts], most, list(ALPHABET.values()), LONGEST)
    return list(dict.fromkeys(map(raw_bytes, found)))


def joins(units: Sequence[Sequence[bytes]], known: Iterable[bytes], most: int) -> list[bytes]:
    """At most `most` pieces of several tokens by merges of whole tokens that are `known`, or single bytes."""
    whole = {*known, *(bytes([byte]) for byte in range(BYTES))}
    sign: dict[bytes, str] = {}
    rows: list[str] = []
    for tokens in units:
        for taken, some in itertools.groupby(tokens, whole.__contains__):
            if taken:
                row = "".join([sign.setdefault(token, chr(FIRST_SIGN + len(sign))) for token in some])
                rows += [row[first : first + LONGEST_ROW] for first in range(0, len(row), LONGEST_ROW)]
    token = {character: raw for raw, character in sign.items()}
    found = pair_merges(rows, most, list(sign.values()), LONGEST)
    joined = (b"".join([token[character] for character in merge]) for merge in found)
    return list(dict.fromkeys(raw for raw in joined if len(raw) <= LONGEST))


def pair_merges(words: Sequence[str], most: int, alphabet: list[str], longest: int) -> list[str]:
    """At most `most` strings by byte-pair merges of the characters of `words`, in the order of learning."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + most,
        min_frequency=LEAST_FREQUENCY,
        initial_alphabet=alphabet,
        max_token_length=longest,
        show_progress=False,
    )
    lines: Iterator[str] = (" ".join(words[first : first + (1 << 12)]) for first in range(0, len(words), 1 << 12))
    tokenizer.train_from_iterator(lines, trainer)
    return [left + right for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


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
