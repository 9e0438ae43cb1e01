"""speak-sim quantize: choose integer formats for a graph on a trace, and say what they cost. Needs no Lava."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speak_neuro.common.provenance import write_result

if TYPE_CHECKING:
    from speak_neuro.export.files.neuron_file import ExportedNeuron
    from speak_neuro.export.files.trace_file import Trace

LEVELS = {"neuron": ("neuron",), "readout": ("readout",), "both": ("neuron", "readout")}


def add_quantize(commands: Any) -> None:
    """The command line of `speak-sim quantize`."""
    parser = commands.add_parser(
        "quantize",
        help="choose integer formats and say what they cost; needs no Lava",
        description="Choose the integer formats of Loihi-style fixed point on a trace, and print what rounding costs.",
    )
    parser.add_argument("--graph", type=Path, required=True, help="the NIR file of speak-export")
    parser.add_argument("--trace", type=Path, required=True, help="the trace of speak-export")
    parser.add_argument("--level", choices=list(LEVELS), default="both", help="what to quantise (default: both)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write formats and errors as JSON")
    add_formats(parser)


def add_formats(parser: argparse.ArgumentParser) -> None:
    """The flags that decide number formats."""
    parser.add_argument("--calibration", type=Path, help="trace that number formats are chosen on (default: --trace)")
    parser.add_argument("--fixed-threshold", type=int, metavar="T", help="threshold as an integer (default: chosen)")


def formats(arguments: argparse.Namespace) -> dict[str, Any]:
    """What those flags say, as `fixed_level` takes it."""
    from speak_neuro.export.files.trace_file import read_trace

    calibration = read_trace(arguments.calibration) if arguments.calibration is not None else None
    return {"calibration": calibration, "threshold": arguments.fixed_threshold}


def quantize(arguments: argparse.Namespace, exported: ExportedNeuron, trace: Trace) -> int:
    """Print formats, worst rounding and agreement with the float run, level by level; exit code 0."""
    from speak_neuro.sim.fixed.compare import against_float, fixed_lines
    from speak_neuro.sim.fixed.levels import describe, fixed_level

    options, metrics = formats(arguments), {}
    for level in LEVELS[arguments.level]:
        found = fixed_level(level, exported, trace, **options)  # type: ignore[arg-type]
        compared, _ = against_float(found, exported, trace)
        saturations = int(found.run.saturated.sum())
        result = {"format": describe(found), "saturations": saturations, "float": compared}
        print("\n".join([f"{level} level", *fixed_lines(result)]))
        metrics[level] = {**describe(found), "saturations": saturations, **numbers(compared)}
    write_result(arguments, metrics)
    return 0


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """What of a result is one number."""
    return {key: value for key, value in result.items() if isinstance(value, (bool, int, float))}
