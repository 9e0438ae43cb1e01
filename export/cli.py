"""speak-export: a run folder to boundary.nir and trace.npz."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from speak_neuro.common.command import at_least, run_command


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="speak-export",
        description="Export a trained tokenizer's boundary neuron as a NIR graph, with a trace of its run on a text.",
        epilog="Exit codes: 0 done, 2 bad input or not exactly exportable.",
    )
    parser.add_argument(
        "--to", choices=("nir", "table"), default="nir", help="nir: graph and trace; table: for speak-tokenize --table"
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of speak-train")
    parser.add_argument("--text", type=Path, help="UTF-8 text to trace (default: the test part of the embedded text)")
    parser.add_argument("--out", type=Path, help="folder of graph and trace, or the table's file (default: in RUN)")
    parser.add_argument("--rows", type=int, default=256, help="at most so many rows in the trace (default: 256)")
    parser.add_argument("--row-length", type=int, default=512, help="longer lines are cut here (default: 512)")
    parser.add_argument("--no-trace", action="store_true", help="write the graph alone")
    parser.add_argument("--check", action="store_true", help="only say which graphs the run allows, and why not others")
    add_form_flags(parser)
    parser.add_argument(
        "--device", default="cpu", help="device of the traced run: auto, cpu, cuda, cuda:N (default: cpu)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was exported as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return run_command(parser, export, argv)


def export(arguments: argparse.Namespace) -> int:
    """Write what the flags name."""
    at_least(arguments, 1, "rows", "row_length")
    from speak_neuro.export.write import write

    return write(arguments)


def add_form_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that choose another graph than boundary.nir."""
    group = parser.add_argument_group("other graphs", "Written beside boundary.nir, each under a name of its own.")
    group.add_argument(
        "--fold",
        action="store_true",
        help="the whole tokenizer: one-hot characters in, boundaries out (folded.nir, folded.alphabet.json)",
    )
    group.add_argument("--axon-limit", type=int, metavar="N", help="characters that one core takes (default: 4096)")
    group.add_argument(
        "--lower",
        nargs="?",
        const="float32",
        choices=("float32", "float64"),
        help="the same neuron out of stock NIR nodes only, exact for a reader that computes in this precision "
        "(default: float32; lowered.nir, with --fold folded-lowered.nir)",
    )
    group.add_argument(
        "--largest-current", type=float, metavar="I", help="no current exceeds this, where it cannot be proven"
    )
    group.add_argument(
        "--largest-potential", type=float, metavar="U", help="no potential exceeds this: fewer nodes than the proof"
    )
    group.add_argument(
        "--approximate",
        choices=("lif", "lif-unit-r"),
        help="one stock LIF that resets to v_reset, for readers that know nothing else; not the same neuron, and the "
        "file says by how much (approximate.nir). lif-unit-r: for readers that take r for 1, as Norse does",
    )


if __name__ == "__main__":
    sys.exit(main())
