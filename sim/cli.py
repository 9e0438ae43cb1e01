"""speak-sim: run an exported boundary neuron in Lava's CPU simulator, or prove its run equal to the trained one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speak_neuro.common.command import run_command
from speak_neuro.common.files import atomic_write, check_writable, write_json
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.sim.networks.cli import add_verify, run_on_input, run_verify
from speak_neuro.sim.quantize_cli import LEVELS, add_formats, add_quantize, formats, numbers, quantize
from speak_neuro.sim.tokenize import add_tokenize, tokenize

if TYPE_CHECKING:
    from speak_neuro.export.files.neuron_file import ExportedNeuron
    from speak_neuro.export.files.trace_file import Trace


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: done or equal; 1: parity failed; 2: bad input or a failed simulation; 3: Lava is missing."""
    return run_command(_parser(), _action, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speak-sim",
        description="Run an exported tokenizer in Lava's CPU simulator, or prove its run equal to the trained one.",
        epilog="Exit codes: 0 done and equal, 1 parity failed, 2 bad input or a failed simulation, 3 Lava is missing.",
    )
    commands = parser.add_subparsers(
        dest="action", required=True, metavar="run | parity | quantize | tokenize | verify"
    )
    parity = commands.add_parser(
        "parity",
        help="compare the trained run with Lava, spike by spike",
        description="Compare the trained run with Lava, spike by spike, and write parity.json and parity.html.",
        epilog=parser.epilog,
    )
    run = commands.add_parser(
        "run",
        help="simulate and write spikes and membrane potentials",
        description="Simulate the trace's sequences in Lava and write spikes, membrane, current, gate_logit, length.",
    )
    for command in (parity, run):
        command.add_argument("--graph", type=Path, required=True, help="the NIR file of speak-export")
        command.add_argument("--trace", type=Path, required=command is parity, help="the trace of speak-export")
        command.add_argument("--timeout", type=_seconds, help="seconds per level (default: by the work to do)")
        command.add_argument("--python", help="Python that has Lava (default: $SPEAK_SIM_PYTHON, else this one)")
        command.add_argument("--json", type=Path, metavar="FILE", help="also write counts as JSON")
    parity.add_argument("--level", choices=list(LEVELS), default="both", help="what to compare (default: both)")
    parity.add_argument(
        "--model", choices=["float", "fixed", "both"], default="float", help="arithmetic (default: float)"
    )
    add_formats(parity)
    parity.add_argument(
        "--strict",
        "--strict-readout",
        dest="strict",
        action="store_true",
        help="fail on any spike that differs from the trained run's, rounding or not",
    )
    parity.add_argument("--out", type=Path, help="folder of parity.json and parity.html (default: the trace's)")
    run.add_argument("--level", choices=["neuron", "readout"], default="readout", help="inputs (default: readout)")
    run.add_argument("--out", type=Path, required=True, help="the .npz to write")
    run.add_argument(
        "--input", type=Path, metavar="FILE", help="instead of a trace: .npy of (batch, steps, ...) numbers"
    )
    add_quantize(commands)
    add_tokenize(commands, _seconds)
    add_verify(commands, _seconds)
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a positive number of seconds")
    return seconds


def _action(arguments: argparse.Namespace) -> int:
    if arguments.action == "tokenize":
        return tokenize(arguments)
    if arguments.action == "verify" or (arguments.action == "run" and arguments.input is not None):
        if arguments.action == "run":
            check_writable(arguments.out)
        with _Progress() as progress:
            return (run_verify if arguments.action == "verify" else run_on_input)(arguments, progress)
    if arguments.action == "run" and arguments.trace is None:
        raise SpeakError("neither --trace nor --input is given; allowed: one of them")
    from speak_neuro.export.files.neuron_file import read_neuron
    from speak_neuro.export.files.trace_file import read_trace
    from speak_neuro.sim.parity.levels import check_same_neuron

    if arguments.action == "parity":
        check_writable((arguments.out or arguments.trace.parent) / "parity.json")
    elif arguments.action == "run":
        check_writable(arguments.out)
    exported, trace = read_neuron(arguments.graph), read_trace(arguments.trace)
    try:
        check_same_neuron(exported, trace)
    except SpeakError as error:
        raise SpeakError(f"{arguments.graph}, {arguments.trace}: {error}") from None
    return {"parity": _parity, "run": _run, "quantize": quantize}[arguments.action](arguments, exported, trace)


def _parity(arguments: argparse.Namespace, exported: ExportedNeuron, trace: Trace) -> int:
    from speak_neuro.sim.parity.compare import Parity, compare, header
    from speak_neuro.sim.parity.report import render
    from speak_neuro.sim.summary import summary

    folder = arguments.out or arguments.trace.parent
    options: dict[str, Any] = {
        "levels": LEVELS[arguments.level],
        "timeout": arguments.timeout,
        "python": arguments.python,
    }
    parity = Parity(header(exported, trace))
    with _Progress() as progress:
        if arguments.model != "fixed":
            parity = compare(exported, trace, strict_readout=arguments.strict, on_step=progress, **options)
        if arguments.model != "float":
            from speak_neuro.sim.fixed.compare import add_fixed

            options |= formats(arguments)
            parity = add_fixed(parity, exported, trace, strict=arguments.strict, on_step=progress, **options)
    report = {"graph": str(arguments.graph), "trace_file": str(arguments.trace), **parity.report}
    write_json(folder / "parity.json", report)
    with atomic_write(folder / "parity.html", "w") as stream:
        stream.write(render(report, exported, trace, parity.runs))
    metrics = {name: numbers(result) for name, result in report["levels"].items()}
    for name, result in report.get("fixed", {}).items():
        metrics[f"fixed {name}"] = {**numbers(result), "float": numbers(result["float"])}
    write_result(arguments, {"passed": parity.passed, **metrics})
    print("\n".join(summary(report)))
    runs = [str(meta.get("run", "")) for meta in (exported.metadata, trace.meta)]
    if not parity.passed and all(runs) and runs[0] != runs[1]:
        print(f"the graph is of run {runs[0]}, the trace of run {runs[1]}: export both from one")
    print(f"report: {folder / 'parity.html'}")
    return 0 if parity.passed else 1


def _run(arguments: argparse.Namespace, exported: ExportedNeuron, trace: Trace) -> int:
    import numpy as np

    from speak_neuro.sim.parity.levels import run_level

    with _Progress() as progress:
        run = run_level(
            arguments.level,
            exported,
            trace,
            timeout=arguments.timeout,
            python=arguments.python,
            on_step=lambda step, total: progress(arguments.level, step, total),
        )
    with atomic_write(arguments.out) as stream:
        np.savez_compressed(
            stream,
            spikes=run.spikes.astype(np.uint8),
            membrane=run.membrane,
            current=run.current,
            gate_logit=run.gate_logit,
            length=trace.length,
        )
    spikes = int(run.spikes.sum())
    metrics = {
        "level": arguments.level,
        "sequences": trace.sequences,
        "positions": int(trace.length.sum()),
        "spikes": spikes,
        "seconds": round(run.seconds, 3),
    }
    write_result(arguments, metrics)
    print(f"{arguments.level} level: {spikes:,} spikes, {trace.sequences:,} sequences -> {arguments.out}")
    return 0


class _Progress:
    """A bar on stderr for each level, shown after two seconds."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._level = ""

    def __enter__(self) -> Callable[[str, int, int], None]:
        return self._update

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _update(self, level: str, step: int, total: int) -> None:
        from tqdm import tqdm

        if level != self._level:
            self.__exit__()
            self._level = level
            self._bar = tqdm(total=total, desc=f"{level} level", unit="step", delay=2.0, file=sys.stderr, leave=False)
        self._bar.update(min(step, total) - self._bar.n)


if __name__ == "__main__":
    sys.exit(main())
