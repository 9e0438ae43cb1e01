"""speak-export's other graphs: folded, lowered, approximate, and the list of what a checkpoint allows."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speak_neuro.common.command import at_least
from speak_neuro.common.files import legible
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError

if TYPE_CHECKING:
    import nir

    from speak_neuro.export.files.folded_file import Folded
    from speak_neuro.export.files.neuron_file import ExportedNeuron
    from speak_neuro.export.files.trace_file import Trace
    from speak_neuro.export.graphs.lower import Lowered
    from speak_neuro.inference.engine import BoundaryEngine
    from speak_neuro.systems.run_folder import Run
    from speak_neuro.systems.system import System

MakeTrace = Callable[[], "Trace"]


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


def wanted(arguments: argparse.Namespace) -> bool:
    """Whether another graph than boundary.nir is asked for."""
    return bool(arguments.fold or arguments.lower or arguments.approximate)


def write_forms(arguments: argparse.Namespace, run: Run, system: System, make_trace: MakeTrace) -> int:
    """Write the graph that the flags name, and what belongs beside it."""
    at_least(arguments, 1, "axon_limit")
    for name in ("largest_current", "largest_potential"):
        stated = getattr(arguments, name)
        if stated is not None and not 0 < stated < float("inf"):
            raise SpeakError(f"--{name.replace('_', '-')} is {stated}; allowed: finite numbers above 0")
    if arguments.lower and arguments.approximate:
        raise SpeakError("--lower and --approximate exclude each other: the one is exact, the other is not")
    from speak_neuro.export.graph import export_neuron
    from speak_neuro.inference.engine import BoundaryEngine

    engine = BoundaryEngine(system, run.config)
    if arguments.fold:
        return _write_folded(arguments, run, engine, make_trace)
    exported = export_neuron(system, provenance(run, system))
    if arguments.lower:
        from speak_neuro.export.files.neuron_file import neuron_graph

        lowered = lower_graph(arguments, engine, neuron_graph(exported, exported.metadata), None)
        return _write_lowered(arguments, "lowered.nir", lowered)
    return _write_approximate(arguments, "approximate.nir", exported, make_trace())


def provenance(run: Run, system: System) -> dict[str, str | int | float]:
    """Metadata of every graph; a trace has the same digest of the weights."""
    from speak_neuro.common.tensors import tensors_digest
    from speak_neuro.export.files.trace_file import WEIGHTS

    return {
        "producer": "speak_neuro",
        "run": legible(run.folder.resolve().name),
        WEIGHTS: tensors_digest(system.state_dict()),
        "reset_mode": run.config.neuron.reset_mode,
    }


def _write_folded(arguments: argparse.Namespace, run: Run, engine: BoundaryEngine, make_trace: MakeTrace) -> int:
    from speak_neuro.export.files.folded_file import alphabet_path, folded_graph, write_alphabet, write_folded
    from speak_neuro.export.files.trace_file import write_trace
    from speak_neuro.export.fold import AXON_LIMIT, fold

    says = "one-hot characters; the .alphabet.json file beside the graph has their code points"
    folded = fold(engine, {**provenance(run, engine.system), "input": says}, arguments.axon_limit or AXON_LIMIT)
    out = arguments.out or arguments.run
    if arguments.approximate:
        if folded.context > 1:
            raise SpeakError("--approximate takes a single table; fold a linear encoder, or leave --fold away")
        return _write_approximate(arguments, "folded-approximate.nir", folded.neuron, make_trace(), run)
    if arguments.lower:
        lowered = lower_graph(arguments, engine, folded_graph(folded), folded)
        write_alphabet(alphabet_path(out / "folded-lowered.nir"), run.alphabet)
        return _write_lowered(arguments, "folded-lowered.nir", lowered)
    trace = None
    if not arguments.no_trace and folded.context == 1:
        trace = folded_trace(make_trace(), folded, run)
    path = out / "folded.nir"
    write_folded(path, folded)
    write_alphabet(alphabet_path(path), run.alphabet)
    written = [path, alphabet_path(path)]
    if trace is not None:
        write_trace(out / "folded-trace.npz", trace)
        written.append(out / "folded-trace.npz")
    metrics = {
        "characters": folded.characters,
        "context": folded.context,
        "synapses": folded.taps.size,
        "neurons": folded.neuron.neurons,
    }
    return _report(arguments, written, metrics)


def lower_graph(
    arguments: argparse.Namespace, engine: BoundaryEngine, native: nir.NIRGraph, folded: Folded | None
) -> Lowered:
    """The lowered form of a graph of this checkpoint."""
    from speak_neuro.export.bounds import largest_current
    from speak_neuro.export.graphs.lower import grid_exponent, lower

    proven = largest_current(engine)
    stated = arguments.largest_current
    unit = None
    if folded is not None:
        if folded.context == 1:
            proven = float(abs(folded.taps[0, : folded.neuron.neurons]).max())  # one-hot: nothing is rounded
        units = [grid_exponent(folded.taps[:, : folded.neuron.neurons]), grid_exponent(folded.neuron.gain)]
        unit = None if None in units else sum(units)  # type: ignore[arg-type]
    elif engine.tokenizer.grid is not None:
        unit = grid_exponent(engine.tokenizer.neuron.parameters_numpy().gain)  # currents are integers
    lowered = lower(
        native,
        proven if proven is not None else stated,
        unit=unit,
        at_most=arguments.largest_potential,
        precision=arguments.lower or "float32",
    )
    reason = lowered.reason
    if proven is None:
        reason += ", the largest current stated"
    lowered.graph.metadata.update(
        lowered=f"gated-reset LIF out of stock nodes, exact in {arguments.lower or 'float32'}",
        largest_potential=lowered.largest_potential,
        largest_potential_because=reason,
    )
    return dataclasses.replace(lowered, reason=reason)


def _write_lowered(arguments: argparse.Namespace, name: str, lowered: Lowered) -> int:
    from speak_neuro.export.files.neuron_file import write_graph

    path = (arguments.out or arguments.run) / name
    write_graph(path, lowered.graph)
    metrics = {"nodes": len(lowered.graph.nodes), "edges": len(lowered.graph.edges), "bits": lowered.bits}
    print(f"no potential exceeds {lowered.largest_potential:g}: {lowered.reason}")
    return _report(arguments, [path], metrics)


def _write_approximate(
    arguments: argparse.Namespace, name: str, exported: ExportedNeuron, trace: Trace, run: Run | None = None
) -> int:
    from speak_neuro.export.files.folded_file import alphabet_path, write_alphabet
    from speak_neuro.export.files.neuron_file import write_graph
    from speak_neuro.export.graphs.approximate import approximate, disagreement

    path = (arguments.out or arguments.run) / name
    graph = approximate(exported, unit_resistance=arguments.approximate == "lif-unit-r")
    found = disagreement(exported, trace)
    graph.metadata.update(
        approximation="one stock neuron, every spike resets to v_reset, the gate is ignored: not the trained neuron",
        disagreement=f"{found.sentence()}, on {trace.meta.get('text', 'a trace')}",
    )
    write_graph(path, graph)
    if run is not None:
        write_alphabet(alphabet_path(path), run.alphabet)
    print(f"APPROXIMATION: {found.sentence()}")
    metrics = {"positions": found.positions, "differing": found.differing}
    return _report(arguments, [path], metrics, f1=found.f1)


def _report(arguments: argparse.Namespace, written: list[Path], metrics: dict[str, int], **more: Any) -> int:
    """Say what was written; exit code 0."""
    print("wrote " + ", ".join(map(str, written)) + ": " + counted(metrics))
    write_result(arguments, {**metrics, **more})
    return 0


def counted(metrics: dict[str, int]) -> str:
    """`3 rows, 1 neuron`."""
    return ", ".join(f"{value:,} {name.removesuffix('s') if value == 1 else name}" for name, value in metrics.items())


def folded_trace(trace: Trace, folded: Folded, run: Run) -> Trace:
    """The same run with the characters themselves as features, (B, L, V) one-hot."""
    import numpy as np

    from speak_neuro.export.files.folded_file import one_hot
    from speak_neuro.export.trace import FEATURE_LIMIT

    shape = (*trace.current.shape, folded.characters)
    if np.prod(shape) > FEATURE_LIMIT:
        raise SpeakError(
            f"a trace of {shape[0]} rows of {shape[1]} one-hot characters out of {shape[2]} is too large; "
            "give a smaller --rows or --row-length, or --no-trace"
        )
    features = np.zeros(shape, dtype=np.float32)
    for row in range(trace.sequences):
        ids = run.alphabet.encode(trace.text(row))
        features[row, : len(ids)] = one_hot(ids, folded.characters)
    return dataclasses.replace(trace, features=features)
