"""Train SPEAK, or a tokenizer it is compared with, together with a character language model (GTok, Table 1).

python experiments/gtok.py                                  preset smoke on the embedded text
python experiments/gtok.py --data my.txt --out runs/mine    any UTF-8 file, or folder of .txt, in any language
torchrun --standalone --nproc-per-node 2 experiments/gtok.py    by several processes (docs/scaling.md)

The command is `speak-train` (speak_neuro.training.command); this is its door in a checkout.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from speak_neuro.training import command


def build_parser() -> command.Parser:
    """The command line, all of it."""
    return command.build_parser("gtok.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return command.main(argv, "gtok.py")


if __name__ == "__main__":
    sys.exit(main())
