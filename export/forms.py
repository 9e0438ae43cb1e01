"""speak-export's other graphs: folded, lowered, approximate, and the list of what a checkpoint allows."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np

from speak_neuro.common.command import at_least
from speak_neuro.common.files import legible
from speak_neuro.common.provenance import write_result
from speak_neuro.common.tensors import tensors_digest
from speak_neuro.errors import SpeakError
from speak_neuro.export.bounds import largest_current
from speak_neuro.export.files.folded_file import (
    Folded,
    alphabet_path,
    folded_graph,
    one_hot,
    write_alphabet,
    write_folded,
)
from speak_neuro.export.files.neuron_file import ExportedNeuron, neuron_graph, write_graph
from speak_neuro.export.files.trace_file import WEIGHTS, Trace, write_trace
from speak_neuro.export.fold import AXON_LIMIT, fold
from speak_neuro.export.graph import export_neuron
from speak_neuro.export.graphs.approximate import approximate, disagreement
from speak_neuro.export.graphs.lower import Lowered, grid_exponent, lower
from speak_neuro.export.trace import FEATURE_LIMIT
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.systems.run_folder import Run
from speak_neuro.systems.system import System

MakeTrace = Callable[[], "Trace"]


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

    engine = BoundaryEngine(system, run.config)
    if arguments.fold:
        return _write_folded(arguments, run, engine, make_trace)
    exported = export_neuron(system, provenance(run, system))
    if arguments.lower:
        lowered = lower_graph(arguments, engine, neuron_graph(exported, exported.metadata), None)
        return _write_lowered(arguments, "lowered.nir", lowered)
    return _write_approximate(arguments, "approximate.nir", exported, make_trace())


def provenance(run: Run, system: System) -> dict[str, str | int | float]:
    """Metadata of every graph; a trace has the same digest of the weights."""
    return {
        "producer": "speak_neuro",
        "run": legible(run.folder.resolve().name),
        WEIGHTS: tensors_digest(system.state_dict()),
        "reset_mode": run.config.neuron.reset_mode,
        **convention_of(run),
    }


def convention_of(run: Run) -> dict[str, str | int]:
    """What the spikes of an RTok tokenizer mean; nothing for others, whose spikes close tokens at once.

    With `look_ahead` a, every unit is followed by a times U+2581, and the spike of step t is about the character of
    step t - a: the first a steps decide nothing.
    """
    if run.record.get("framework") != "rtok":
        return {}
    return {"convention": "opens", "look_ahead": int(run.record.get("look_ahead", 0))}


def _write_folded(arguments: argparse.Namespace, run: Run, engine: BoundaryEngine, make_trace: MakeTrace) -> int:
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
    path = (arguments.out or arguments.run) / name
    write_graph(path, lowered.graph)
    metrics = {"nodes": len(lowered.graph.nodes), "edges": len(lowered.graph.edges), "bits": lowered.bits}
    print(f"no potential exceeds {lowered.largest_potential:g}: {lowered.reason}")
    return _report(arguments, [path], metrics)


def _write_approximate(
    arguments: argparse.Namespace, name: str, exported: ExportedNeuron, trace: Trace, run: Run | None = None
) -> int:
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
