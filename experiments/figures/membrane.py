"""Draw the membrane potential over a text: the README's picture.

python experiments/figures/membrane.py --trace runs/demo/trace.npz --out docs/membrane.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from speak_neuro.common.command import run_command
from speak_neuro.common.files import atomic_write
from speak_neuro.errors import MissingExtra, SpeakError

HARD, SOFT, LINE = "#b5351c", "#1f66a6", "#333a41"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="figure_membrane.py", description="Membrane potential over a text, as a PNG.")
    parser.add_argument("--trace", type=Path, required=True, help="trace.npz of speak-export")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--row", type=int, default=0, help="row of the trace (default: 0)")
    parser.add_argument("--start", type=int, default=0, help="first character (default: 0)")
    parser.add_argument("--characters", type=int, default=90, help="number of characters (default: 90)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(build_parser(), draw, argv)


def draw(arguments: argparse.Namespace) -> int:
    """Read the trace and write the picture."""
    from speak_neuro.export.files.trace_file import read_trace

    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib is not installed: pip install 'speak-neuro[viz]'") from None

    trace = read_trace(arguments.trace)
    if not 0 <= arguments.row < len(trace.length):
        raise SpeakError(f"--row is {arguments.row}; allowed: 0 to {len(trace.length) - 1}")
    begin, end = trace.text_offsets[arguments.row : arguments.row + 2]
    text = bytes(trace.text_utf8[begin:end]).decode("utf-8", "surrogatepass")
    span = slice(arguments.start, min(arguments.start + arguments.characters, len(text)))
    text = text[span]
    if not text:
        raise SpeakError(f"--start is {arguments.start}; allowed: below the row's {trace.length[arguments.row]}")
    membrane, spikes = trace.membrane[arguments.row, span], trace.spikes[arguments.row, span].astype(bool)
    hard = trace.gate_logit[arguments.row, span] > 0
    threshold = float(trace.threshold)

    figure = Figure(figsize=(0.145 * len(text) + 0.6, 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    positions = range(len(text))
    axes.axhline(threshold, color="#888", linewidth=0.8, linestyle=":")
    axes.plot(positions, membrane, color=LINE, linewidth=1)
    for kind, colour, label in ((spikes & hard, HARD, "hard reset"), (spikes & ~hard, SOFT, "soft reset")):
        axes.plot([t for t in positions if kind[t]], membrane[kind], "o", color=colour, markersize=4, label=label)
        for t in positions:
            if kind[t]:
                axes.axvline(t + 0.5, color=colour, linewidth=0.8, alpha=0.5)
    axes.set_xticks(list(positions), ["·" if c == " " else c for c in text], fontsize=8, family="DejaVu Sans Mono")
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-1, len(text))
    axes.set_ylabel("membrane potential", fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper right", bbox_to_anchor=(1, 1.15))
    with atomic_write(arguments.out) as stream:
        figure.savefig(stream, format="png", dpi=130)
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
