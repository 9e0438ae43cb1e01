"""Bits per character of a test text by general compressors: the mark for a small language model.

    python experiments/bench/ppm.py --json FILE                  # the embedded English text, as preset smoke cuts it
    python experiments/bench/ppm.py --data texts/text8 --order 6

    alone       the compressed test part's bits over its characters
    primed      (bits of train + valid + test  -  bits of train + valid) over the test part's characters

PPMd is Shkarin's PPM with information inheritance, variant H (as in 7z), which predicts a byte from the longest context
of at most `--order` bytes; `primed` is what it makes of the test part after it has read what the model trained on.
"""

from __future__ import annotations

import argparse
import lzma
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.command import run_command
from speak_neuro.common.extras import extra
from speak_neuro.common.provenance import write_result
from speak_neuro.corpus.splits import read_splits
from speak_neuro.errors import SpeakError

ORDERS = (2, 64)
MEMORY = (1, 2000)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ppm.py", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="text, or folder with its parts (default: the embedded text)")
    parser.add_argument("--order", type=int, default=5, help="longest context in bytes (default 5)")
    parser.add_argument("--memory", type=int, default=256, help="MiB for the model (default 256)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return run_command(parser, measure, argv)


def measure(arguments: argparse.Namespace) -> int:
    """Compress, report, and write what was asked for."""
    for name, (least, most) in (("order", ORDERS), ("memory", MEMORY)):
        if not least <= getattr(arguments, name) <= most:
            raise SpeakError(f"--{name} is {getattr(arguments, name)}; allowed: {least} to {most}")
    parts = read_splits(arguments.data)
    before, test = (parts.train + parts.valid).encode(), parts.test.encode()

    def ppm(data: bytes) -> int:
        return ppmd_bytes(data, arguments.order, arguments.memory)

    characters = len(parts.test)
    metrics: dict[str, Any] = {
        "test_characters": characters,
        "order": arguments.order,
        "memory_mib": arguments.memory,
        "ppmd_alone": 8 * ppm(test) / characters,
        "ppmd_primed": 8 * (ppm(before + test) - ppm(before)) / characters,
        "xz_9_alone": 8 * len(lzma.compress(test, preset=9)) / characters,
        "pyppmd": pyppmd().__version__,
    }
    print(f"{characters:,} characters of test text, bits per character")
    print(f"PPMd, order {arguments.order}: {metrics['ppmd_alone']:.3f}, primed {metrics['ppmd_primed']:.3f}")
    print(f"xz -9: {metrics['xz_9_alone']:.3f}")
    write_result(arguments, metrics)
    return 0


def ppmd_bytes(data: bytes, order: int, memory: int) -> int:
    """Length of `data` compressed by PPMd, without a container's header."""
    encoder = pyppmd().Ppmd7Encoder(order, memory << 20)
    return len(encoder.encode(data)) + len(encoder.flush())


def pyppmd() -> Any:
    """The package, or what to install."""
    return extra("pyppmd", "pyppmd")


if __name__ == "__main__":
    sys.exit(main())
