"""How pieces are learned: candidates of several kinds, pruned alike; held-out characters per id of the fewest pieces.

    python experiments/bench/pieces.py texts --runs runs/ids --languages vi,en --sizes 2000 --json pieces.json

Texts, runs and sizes as in ids.py. Each list of candidates is 1.15 times the size that BPE reaches:

    ranges        merges of bytes inside contextual ranges
    words         these, and merges inside words
    joins         merges inside SPEAK's tokens, and merges of whole tokens inside ranges
    all           all of these
    atoms         seven tenths of the pieces from inside tokens, the others joins of whole tokens alone, none pruned
    unigram       Unigram inside ranges, of the wanted size, by `tokenizers`

`pieces` of the library are what learns fewer ids of `ranges` and `joins` (speak_neuro/table/learn_pieces.py).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ids import add_texts, languages_of, texts_of, train_run

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.table.learn_pieces import SURPLUS, joins, merges, most_saving, usage
from speak_neuro.table.pieces import Pieces, cut_units
from speak_neuro.table.vocabulary import BYTES
from speak_neuro.text.byte_alphabet import ALPHABET, raw_bytes, signs
from speak_neuro.text.segments import grouped

Units = list[list[bytes]]
WORD = re.compile(rb" ?[^\s!-/:-@\[-`{-~]+| ?[!-/:-@\[-`{-~]+|\s+")
"""Letters of any script, or signs, with the space before them."""
SHARE = 0.7
"""Of the pieces of `atoms`, those from inside tokens."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="pieces.py", description=(__doc__ or "").split("\n\n")[0])
    add_texts(parser, "2000,8000")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(build_parser(), measure, argv)


def measure(arguments: argparse.Namespace) -> int:
    """Every language, size and kind in turn, a line for each."""
    from speak_neuro.api.tokenizer import Tokenizer
    from speak_neuro.inference.subwords import train_subwords

    found: dict[str, Any] = {}
    for language in languages_of(arguments):
        train_run(arguments, language)
        texts = texts_of(arguments, language)
        train, test = (units_of(Tokenizer.load(arguments.runs / language), text) for text in texts)
        for size in map(int, arguments.sizes.split(",")):
            bpe = train_subwords("bpe", size, [texts[0]], least=2)
            size = bpe.get_vocab_size()
            score = len(texts[1]) / len(bpe.encode(texts[1]).ids)
            row: dict[str, Any] = {"ids": size, "BPE": {"characters_per_id": score}}
            for kind in arguments.kinds.split(","):
                begin = time.process_time()
                pieces = KINDS[kind](train, size)
                ids = [int(usage(pieces, parts_of(units)).sum()) for units in (train, test)]
                row[kind] = {
                    "ids": len(pieces),
                    "characters_per_id": len(texts[1]) / ids[1],
                    "characters_per_id_learned": len(texts[0]) / ids[0],
                    "processor_seconds": time.process_time() - begin,
                }
                print(f"{language} {size:,} {kind}: {len(texts[1]) / ids[1]:.3f}, BPE {score:.3f}", flush=True)
            found.setdefault(language, {})[str(size)] = row
            write_result(arguments, found)
    return 0


def units_of(tokenizer: Any, text: str) -> Units:
    """The tokens of each contextual range of the text."""
    tokens, ranges = (tokenizer.spans(text, "byte", hard_only) for hard_only in (False, True))
    return list(grouped(text.encode(), tokens, ranges))


def parts_of(units: Units) -> list[bytes]:
    """The ranges, cut where they are too long."""
    return [part for tokens in units for part in cut_units(b"".join(tokens)) if part]


def most(size: int) -> int:
    """Candidates for a vocabulary of this size."""
    return round(SURPLUS * (size - BYTES))


def of_ranges(units: Units, size: int) -> list[bytes]:
    """Merges inside ranges."""
    return merges(parts_of(units), most(size))


def of_words(units: Units, size: int) -> list[bytes]:
    """Merges inside words."""
    return merges([word for part in parts_of(units) for word in WORD.findall(part)], most(size))


def of_joins(units: Units, size: int) -> list[bytes]:
    """Merges inside tokens, and of whole tokens."""
    inside = merges([token for tokens in units for token in tokens], most(size))
    return inside + joins(units, inside, most(size))


def pruned(*kinds: Callable[[Units, int], list[bytes]]) -> Callable[[Units, int], Pieces]:
    """Pieces out of the candidates of all kinds."""

    def made(units: Units, size: int) -> Pieces:
        candidates = dict.fromkeys(piece for kind in kinds for piece in kind(units, size))
        return most_saving(list(candidates), parts_of(units), size, "ranges")

    return made


def atoms(units: Units, size: int) -> Pieces:
    """Tokens that never split where they are known, and joins of them."""
    tokens = [token for tokens in units for token in tokens]
    inside = most_saving(merges(tokens, most(size)), tokens, BYTES + round(SHARE * (size - BYTES)), "tokens").tokens
    joined = [piece for piece in joins(units, inside, size) if piece not in inside]
    return unpruned([*inside, *joined[: size - BYTES - len(inside)]])


def unigram(units: Units, size: int) -> Pieces:
    """Unigram's pieces, for the fewest."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    letters = list(ALPHABET.values())
    trainer = trainers.UnigramTrainer(
        vocab_size=size, initial_alphabet=letters, show_progress=False, max_piece_length=32, special_tokens=["<unk>"]
    )
    tokenizer.train_from_iterator(map(signs, parts_of(units)), trainer)
    known = [piece for piece, _ in json.loads(tokenizer.to_str())["model"]["vocab"]]
    return unpruned([raw_bytes(piece) for piece in known if piece != "<unk>" and len(piece) > 1])


def unpruned(tokens: Sequence[bytes]) -> Pieces:
    """A vocabulary of all of them."""
    return Pieces(tuple(tokens), np.zeros(len(tokens), np.int64), "ranges")


KINDS = {
    "ranges": pruned(of_ranges),
    "words": pruned(of_ranges, of_words),
    "joins": pruned(of_joins),
    "all": pruned(of_ranges, of_words, of_joins),
    "atoms": atoms,
    "unigram": unigram,
}

if __name__ == "__main__":
    sys.exit(main())
