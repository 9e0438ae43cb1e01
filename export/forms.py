"""speak-export's other graphs: folded, lowered, approximate, and the list of what a checkpoint allows."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speak_neuro.command import result_record, write_json
from speak_neuro.errors import SpeakError

if TYPE_CHECKING:
    from speak_neuro.checkpoint import Run, System
    from speak_neuro.export.folded import Folded
    from speak_neuro.export.trace_file import Trace

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


def wanted(arguments: argparse.Namespace) -> bool:
    """Whether another graph than boundary.nir is asked for."""
    return bool(arguments.fold)


def write_forms(arguments: argparse.Namespace, run: Run, system: System, make_trace: MakeTrace) -> int:
    """Write the graph that the flags name, and what belongs beside it."""
    from speak_neuro.export.fold import AXON_LIMIT, fold
    from speak_neuro.export.folded import alphabet_path, write_alphabet, write_folded
    from speak_neuro.inference import BoundaryEngine

    if arguments.axon_limit is not None and arguments.axon_limit < 1:
        raise SpeakError(f"--axon-limit is {arguments.axon_limit}; allowed: at least 1")
    out = arguments.out or arguments.run
    provenance = {
        "producer": "speak_neuro",
        "run": run.folder.resolve().name,
        "reset_mode": run.config.neuron.reset_mode,
    }
    folded = fold(
        BoundaryEngine(system, run.config),
        {
            **provenance,
            "input": "one-hot characters; the .alphabet.json file beside the graph has their code points",
        },
        arguments.axon_limit or AXON_LIMIT,
    )
    trace = None
    if not arguments.no_trace and folded.context == 1:
        trace = folded_trace(make_trace(), folded, run)
    path = out / "folded.nir"
    write_folded(path, folded)
    write_alphabet(alphabet_path(path), run.alphabet)
    written = [path, alphabet_path(path)]
    metrics: dict[str, Any] = {
        "characters": folded.characters,
        "context": folded.context,
        "synapses": folded.taps.size,
        "neurons": folded.neuron.neurons,
    }
    if trace is not None:
        from speak_neuro.export.trace_file import write_trace

        write_trace(out / "folded-trace.npz", trace)
        written.append(out / "folded-trace.npz")
    return report(arguments, written, metrics)


def report(arguments: argparse.Namespace, written: list[Path], metrics: dict[str, Any]) -> int:
    """Say what was written; exit code 0."""
    print("wrote " + ", ".join(map(str, written)) + ": " + ", ".join(f"{v:,} {k}" for k, v in metrics.items()))
    if arguments.json:
        write_json(arguments.json, result_record(arguments.command_line, metrics))
    return 0


def folded_trace(trace: Trace, folded: Folded, run: Run) -> Trace:
    """The same run with the characters themselves as features, (B, L, V) one-hot."""
    import numpy as np

    from speak_neuro.export.folded import one_hot
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
