"""`speak-sim verify`, and `speak-sim run --input`: networks of neurons in Lava, from a NIR file and numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speak_neuro.common.files import atomic_write, check_writable, write_json
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError

MODELS = {"float": ("neuron", "network"), "fixed": ("fixed",), "both": ("neuron", "network", "fixed")}


def add_verify(commands: Any, seconds: Callable[[str], float]) -> None:
    """The subcommand's flags."""
    parser = commands.add_parser(
        "verify",
        help="compare a network of neurons with Lava, layer by layer",
        description="Run a NIR graph of any neurons on numbers in Lava, compare every layer with the module's own run "
        "or with the graph's run in numpy, and write verify.json and verify.html.",
        epilog="Exit codes: 0 equal, 1 not equal, 2 bad input or a failed simulation, 3 Lava is missing.",
    )
    parser.add_argument(
        "--graph", type=Path, required=True, help="a NIR file, of speak_neuro.export.to_nir for instance"
    )
    parser.add_argument("--input", type=Path, required=True, help=".npy of (batch, steps, ...) numbers")
    parser.add_argument("--reference", type=Path, help=".npz of the module's run (speak_neuro.sim.save_reference)")
    parser.add_argument("--model", choices=list(MODELS), default="float", help="arithmetic (default: float)")
    parser.add_argument("--dt", type=float, default=1e-4, help="seconds of a step, which NIR files don't say (1e-4)")
    parser.add_argument("--out", type=Path, help="folder of verify.json and verify.html (default: the graph's)")
    parser.add_argument(
        "--neurons", type=int, nargs="+", help="neurons of each layer to draw (default: the busiest four)"
    )
    parser.add_argument("--costs", action="store_true", help="also count what the network costs on a chip")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the graph, .png or .svg (matplotlib)")
    parser.add_argument("--timeout", type=seconds, help="seconds for each simulation (default: by the work to do)")
    parser.add_argument("--python", help="Python that has Lava (default: $SPEAK_SIM_PYTHON, else this one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write counts as JSON")


def run_verify(arguments: argparse.Namespace, progress: Callable[[str, int, int], None]) -> int:
    """Exit code 0: equal; 1: not."""
    from speak_neuro.export.files.neuron_file import read_graph
    from speak_neuro.export.graphs.network import network_of
    from speak_neuro.export.graphs.network_costs import network_costs
    from speak_neuro.export.graphs.network_picture import save_picture
    from speak_neuro.sim.networks.reference_file import read_reference
    from speak_neuro.sim.networks.report import render
    from speak_neuro.sim.networks.verify import verify

    folder = arguments.out or arguments.graph.parent
    check_writable(folder / "verify.json", arguments.picture)
    inputs = read_input(arguments.input)
    reference = read_reference(arguments.reference) if arguments.reference else None
    found = verify(
        arguments.graph,
        inputs,
        reference,
        levels=MODELS[arguments.model],  # type: ignore[arg-type]
        dt=arguments.dt,
        timeout=arguments.timeout,
        python=arguments.python,
        on_step=progress,
    )
    report = {"graph": str(arguments.graph), "input": str(arguments.input), **found.report}
    if arguments.costs or arguments.picture:
        network = network_of(read_graph(arguments.graph), arguments.dt)
        if arguments.costs:
            report["costs"] = network_costs(network, inputs).to_json()
        if arguments.picture:
            save_picture(arguments.picture, network)
    write_json(folder / "verify.json", report)
    with atomic_write(folder / "verify.html", "w") as stream:
        stream.write(render(report, found, arguments.neurons))
    write_result(arguments, {"passed": found.passed, "levels": report["levels"]})
    print("\n".join(lines(report)))
    print(f"report: {folder / 'verify.html'}")
    return 0 if found.passed else 1


def lines(report: dict[str, Any]) -> list[str]:
    """The report for a terminal."""
    kinds = {row["name"]: f"{row['kind']} x {row['neurons']}" for row in report["layers"]}
    found = [f"{report['sequences']:,} sequences of {report['steps']:,} steps; reference: {report['reference']}"]
    for level, result in report["levels"].items():
        found.append(f"{level} level: {'equal' if result['passed'] else 'NOT equal'}")
        for row in result["layers"]:
            text = (
                f"  {row['name']} ({kinds[row['name']]}): {row['spikes']:,} spikes, {row['spike_mismatches']:,} differ"
            )
            if level != "network":
                text += f", {row['membrane_mismatches']:,} potentials differ"
            elif row["largest_difference"]:
                text += f", potentials within {row['largest_difference']:.2g} (rounding allows {row['bound']:.2g})"
            if "float_agreement" in row:
                text += f"; {row['float_agreement']:.3%} of positions as in float32"
            found.append(text)
            if row["first"]:
                first = row["first"]
                found.append(
                    f"    first at sequence {first['sequence']}, step {first['step']}, neuron "
                    f"{first['neuron']}: {first['cause']}"
                )
    if "costs" in report:
        total = report["costs"]["total"]
        found.append(
            f"costs a step: {total['effective_acs']:,.1f} additions and {total['effective_macs']:,.1f} multiplications "
            f"of {total['dense_synops']:,.0f} connections, {total['neurons']:,} neuron updates, "
            f"{total['spikes']:,.1f} spikes; "
            f"about {total['picojoules'] / 1e3:,.1f} nJ by the first Loihi's published figures, "
            f"{total['footprint_bytes'] / 1024:,.1f} KiB"
        )
    return found


def read_input(path: Path) -> Any:
    """The numbers of an .npy file."""
    from speak_neuro.common.archives import read_array

    return read_array(path, "an .npy file of numbers", "write one with numpy.save")


def run_on_input(arguments: argparse.Namespace, progress: Callable[[str, int, int], None]) -> int:
    """`speak-sim run --input`: Lava alone."""
    import numpy as np

    from speak_neuro.sim.networks.verify import simulate

    if arguments.trace is not None:
        raise SpeakError("--input and --trace are both given; allowed: one")
    run = simulate(
        arguments.graph,
        read_input(arguments.input),
        timeout=arguments.timeout,
        python=arguments.python,
        on_step=progress,
    )
    arrays = {"output": run.output}
    for name, layer in run.layers.items():
        arrays |= {f"{name}.spikes": layer.spikes.astype(np.uint8), f"{name}.membrane": layer.membrane}
    with atomic_write(arguments.out) as stream:
        np.savez_compressed(stream, **arrays)
    spikes = {name: int(layer.spikes.sum()) for name, layer in run.layers.items()}
    write_result(arguments, {"spikes": spikes})
    listed = ", ".join(f"{name} {count:,}" for name, count in spikes.items())
    print(f"spikes: {listed or 'none'} -> {arguments.out}")
    return 0
