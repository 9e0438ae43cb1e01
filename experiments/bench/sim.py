"""Speed of the simulation: steps and characters per second in Lava, and a million characters through parity.

    python experiments/bench/sim.py --json bench_sim.json
    python experiments/bench/sim.py --populations 1024 --repeats 3 --characters 100000

The yardstick, in the same run, is Lava's stock LIF in the same surroundings:

    process     the neuron's process alone, its inputs unconnected
    network     source -> neuron -> recorder

First the gate is checked: with every reset hard the gated neuron and the stock LIF must spike at the same steps, in
floating point and in fixed point, and a small trace must pass parity. When anything differs nothing is timed and the
exit code is 1. Contenders take turns; medians are reported. A lane is a sequence, so characters per second are steps
per second times lanes.

The last part writes a trace of many characters and gives it to `speak-sim parity --level neuron`: reading the files,
the numpy reference, Lava, comparison and report, in wall time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from network import measure

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.provenance import device_name, write_result
from speak_neuro.errors import ParityError, SpeakError
from speak_neuro.sim.cli import main as speak_sim

POPULATIONS = (1, 64, 1024, 16384)
KINDS, ARITHMETICS, PLACES = ("stock", "gated"), ("float", "fixed"), ("process", "network")
JUDGED = 1024
"""Population at which the gated neuron may cost at most LIMIT times the stock one."""
LIMIT = 1.3
SECONDS = 60.0
"""For a million characters through parity."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_sim", description="time the simulation in Lava")
    parser.add_argument("--populations", type=int, nargs="+", default=POPULATIONS, help="lanes (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="time steps of a measurement (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each contender (default: %(default)s)")
    parser.add_argument("--characters", type=int, default=1_000_000, help="through parity; 0 for none")
    parser.add_argument("--row-length", type=int, default=512, help="characters a row (default: %(default)s)")
    parser.add_argument(
        "--features", type=int, default=128, help="width of the trace's features (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return run_command(parser, bench, argv)


def bench(arguments: argparse.Namespace) -> int:
    at_least(arguments, 100, "steps")
    at_least(arguments, 1, "repeats", "row_length", "features")
    at_least(arguments, 0, "characters")
    if any(lanes < 1 for lanes in arguments.populations):
        raise SpeakError(f"--populations is {arguments.populations}; allowed: 1 or more each")
    check_oracle()
    with tempfile.TemporaryDirectory() as folder:
        through_parity(Path(folder), 2000, 100, 4)
    print(f"parity: equal    {device_name()}")
    speeds = {str(lanes): compare(lanes, arguments.steps, arguments.repeats) for lanes in arguments.populations}
    metrics: dict[str, Any] = {"parity": "equal", "steps": arguments.steps, "repeats": arguments.repeats}
    metrics["steps_per_second"] = speeds
    metrics["characters_per_second"] = {
        lanes: {name: value * int(lanes) for name, value in found.items() if name.startswith("gated")}
        for lanes, found in speeds.items()
    }
    metrics["cost_of_gated_over_stock"] = {lanes: ratios(found) for lanes, found in speeds.items()}
    if str(JUDGED) in speeds:
        metrics["within_limit"] = metrics["cost_of_gated_over_stock"][str(JUDGED)]["process, float"] <= LIMIT
    report(metrics)
    if arguments.characters:
        with tempfile.TemporaryDirectory() as folder:
            size = arguments.characters, arguments.row_length, arguments.features
            metrics["through_parity"] = through_parity(Path(folder), *size)
        found = metrics["through_parity"]
        print(
            f"parity of {found['characters']:,} characters, neuron level: {found['seconds']:.1f} s, "
            f"{found['simulation_seconds']:.1f} s of it in Lava, {found['spikes']:,} spikes, 0 mismatches"
        )
    write_result(arguments, metrics)
    return 0


def measured(kind: str, arithmetic: str, place: str, lanes: int, steps: int, current: Any = None) -> Any:
    """One run in an interpreter of its own: `seconds` of its steps, and `spikes`."""
    current = drive(arithmetic, lanes) if current is None else current
    return measure(kind, current, steps, 1, arithmetic, connected=place == "network")


def drive(arithmetic: str, lanes: int) -> Any:
    """Currents (50, lanes) that land on the threshold often: quarters of it."""
    import numpy as np

    current = np.random.default_rng(0).integers(-1, 4, (50, lanes))
    return (current / 4).astype(np.float32) if arithmetic == "float" else (current * 16).astype(np.int32)


def check_oracle() -> None:
    """Raise ParityError unless the gated neuron with open gates and the stock LIF spike alike."""
    for arithmetic in ARITHMETICS:
        stock, gated = (measured(kind, arithmetic, "network", 64, 100).spikes for kind in KINDS)
        if not gated.any() or (stock != gated).any():
            raise ParityError(
                f"{arithmetic}: {int((stock != gated).sum())} spikes of the gated neuron and the stock LIF differ; "
                "nothing was timed"
            )


def compare(lanes: int, steps: int, repeats: int) -> dict[str, float]:
    """Steps per second of each contender, medians, the contenders taking turns."""
    steps = max(100, steps // 4) if lanes > 4096 else steps
    speeds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for place in PLACES:
            for arithmetic in ARITHMETICS:
                for kind in KINDS:
                    seconds = measured(kind, arithmetic, place, lanes, steps).seconds
                    speeds.setdefault(f"{kind} {place}, {arithmetic}", []).append(steps / seconds)
    return {name: statistics.median(values) for name, values in speeds.items()}


def ratios(speeds: dict[str, float]) -> dict[str, float]:
    """How many times as long as the stock neuron's a step of the gated one takes."""
    return {
        f"{place}, {arithmetic}": speeds[f"stock {place}, {arithmetic}"] / speeds[f"gated {place}, {arithmetic}"]
        for place in PLACES
        for arithmetic in ARITHMETICS
    }


def through_parity(folder: Path, characters: int, row_length: int, features: int) -> dict[str, Any]:
    """Wall time of `speak-sim parity --level neuron` on a trace of so many characters."""
    graph, trace = make_files(folder, characters, row_length, features)
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = speak_sim(["parity", "--graph", str(graph), "--trace", str(trace), "--level", "neuron"])
    seconds = time.perf_counter() - begin
    if code == 1:
        raise ParityError(f"{printed.getvalue().splitlines()[0]}; nothing was timed")
    if code:
        raise SpeakError(f"speak-sim parity ended with exit code {code}")
    level = json.loads((folder / "parity.json").read_text(encoding="utf-8"))["levels"]["neuron"]
    return {
        "characters": level["positions"],
        "rows": level["sequences"],
        "features": features,
        "spikes": level["spikes"],
        "seconds": seconds,
        "simulation_seconds": level["seconds"],
        "within_limit": seconds <= SECONDS * max(1.0, characters / 1_000_000),
    }


def make_files(folder: Path, characters: int, row_length: int, features: int) -> tuple[Path, Path]:
    """A graph and a trace whose run is the numpy reference's, on random currents."""
    import numpy as np

    from speak_neuro.export.files.neuron_file import ExportedNeuron, write_neuron
    from speak_neuro.export.files.trace_file import Trace, encode_texts, write_trace
    from speak_neuro.neuron.reference import NeuronParameters, gated_lif_run

    rng = np.random.default_rng(0)
    length = np.full(-(-characters // row_length), row_length, dtype=np.int64)
    length[-1] = characters - row_length * (len(length) - 1)
    valid = np.arange(row_length) < length[:, None]
    current = np.where(valid, rng.normal(0.2, 0.3, valid.shape), 0).astype(np.float32)
    gate_logit = np.where(valid, rng.normal(-1, 1, valid.shape), 0).astype(np.float32)
    run = gated_lif_run(current, gate_logit, NeuronParameters(), valid=valid)
    text_utf8, text_offsets = encode_texts(["x" * count for count in length.tolist()])
    scalars = {"decay": 1.0, "gain": 1.0, "threshold": 1.0, "reset_potential": 0.0, "reset_scale": 0.8}
    exported = ExportedNeuron(
        weight=np.zeros((2, features), dtype=np.float32),
        bias=np.zeros(2, dtype=np.float32),
        gate_threshold=np.zeros(1, dtype=np.float32),
        **{name: np.array([value], dtype=np.float32) for name, value in scalars.items()},
    )
    trace = Trace(
        current=current,
        gate_logit=gate_logit,
        membrane=np.where(valid, run.membrane, np.float32(0)),
        spikes=run.spikes.astype(np.uint8),
        length=length,
        features=rng.integers(-8, 9, (*valid.shape, features), dtype=np.int8).astype(np.float32),
        text_utf8=text_utf8,
        text_offsets=text_offsets,
        meta={"device": "numpy"},
        **{name: np.asarray(np.float32(value)) for name, value in scalars.items()},
    )
    write_neuron(folder / "boundary.nir", exported)
    write_trace(folder / "trace.npz", trace)
    return folder / "boundary.nir", folder / "trace.npz"


def report(metrics: dict[str, Any]) -> None:
    print("steps per second, stock LIF / gated neuron, and how much more a gated step costs")
    for lanes, found in metrics["steps_per_second"].items():
        print(f"  {int(lanes):,} lanes")
        for name, ratio in metrics["cost_of_gated_over_stock"][lanes].items():
            stock, gated = found[f"stock {name}"], found[f"gated {name}"]
            print(
                f"    {name:16}{stock:10,.0f} / {gated:8,.0f}   {ratio:.2f}   {gated * int(lanes):14,.0f} characters/s"
            )
    if "within_limit" in metrics:
        verdict = "within" if metrics["within_limit"] else "ABOVE"
        print(f"  process, float, {JUDGED:,} lanes: {verdict} the limit of {LIMIT}")


if __name__ == "__main__":
    sys.exit(main())
