"""speak-export --check: which graphs a checkpoint allows, what each costs in nodes, and why it refuses the others."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.export.files.folded_file import folded_graph
from speak_neuro.export.files.neuron_file import neuron_graph
from speak_neuro.export.fold import AXON_LIMIT, fold
from speak_neuro.export.forms import lower_graph
from speak_neuro.export.graph import export_neuron
from speak_neuro.export.graphs.approximate import approximate
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.systems.run_folder import Run
from speak_neuro.systems.system import System


def check(arguments: argparse.Namespace, run: Run, system: System) -> int:
    """Print one line per graph; exit code 0 when the native one is exact, 2 when not."""
    engine = BoundaryEngine(system, run.config)
    builds: dict[str, Callable[[], str]] = {
        "native": lambda: _native(system),
        "folded": lambda: _folded(arguments, engine),
        "lowered": lambda: _lowered(arguments, engine, False),
        "folded and lowered": lambda: _lowered(arguments, engine, True),
        "approximate": lambda: _approximate(system),
    }
    answers = {name: _attempt(build) for name, build in builds.items()}
    for name, (allowed, text) in answers.items():
        print(f"{name:20} {'yes' if allowed else 'no'}: {text}")
    exact, reason = answers["native"]
    graphs = {name: {"allowed": allowed, "says": text} for name, (allowed, text) in answers.items()}
    metrics = {"exact": exact, "reasons": [] if exact else [reason], "graphs": graphs}
    write_result(arguments, metrics)
    return 0 if exact else 2


def _attempt(build: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, build()
    except (SpeakError, ValueError) as error:
        return False, " ".join(str(error).split())


def _native(system: System) -> str:
    exported = export_neuron(system)
    nodes = len(neuron_graph(exported).nodes)
    return f"{nodes} nodes, exact from {exported.features} features on (the encoder stays outside)"


def _folded(arguments: argparse.Namespace, engine: BoundaryEngine) -> str:
    folded = fold(engine, None, arguments.axon_limit or AXON_LIMIT)
    return (
        f"{len(folded_graph(folded).nodes)} nodes, the whole tokenizer: {folded.characters} characters, "
        f"{folded.context} of them at a time, {folded.taps.size} synapses"
    )


def _lowered(arguments: argparse.Namespace, engine: BoundaryEngine, whole: bool) -> str:
    folded = fold(engine, None, arguments.axon_limit or AXON_LIMIT) if whole else None
    native = folded_graph(folded) if folded is not None else neuron_graph(export_neuron(engine.system))
    lowered = lower_graph(arguments, engine, native, folded)
    return (
        f"{len(lowered.graph.nodes)} nodes, all stock, for {lowered.bits} bits "
        f"(no potential exceeds {lowered.largest_potential:.3g}: {lowered.reason})"
    )


def _approximate(system: System) -> str:
    graph = approximate(export_neuron(system))
    kind = type(graph.nodes["neuron"]).__name__
    return f"{len(graph.nodes)} nodes, one stock {kind}, not exact; --approximate lif measures how wrong on a trace"
