"""Checkpoint to table: what the network computes for each character, once for all (see `speak_neuro.table`)."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from speak_neuro.alphabet import Alphabet
from speak_neuro.checkpoint import Run, System, load_system
from speak_neuro.command import package_versions, result_record, write_json
from speak_neuro.config import RunConfig
from speak_neuro.export.graph import UnsupportedExport
from speak_neuro.inference import BoundaryEngine
from speak_neuro.table import CompiledTable

NAME = "table.safetensors"


def table_refusals(system: System, config: RunConfig) -> list[str]:
    """Why this system has no table; empty when it has."""
    reasons = []
    encoder = config.tokenizer.encoder
    if encoder != "linear":
        sees = "the last --context characters" if encoder == "window" else "the whole text before"
        reasons.append(
            f"the {encoder} encoder is not linear over one-hot characters: its features depend on {sees}, "
            "a table on the character alone; train with --encoder linear"
        )
    for name, value in system.tokenizer.state_dict().items():
        array = value.detach().cpu().numpy()
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            reasons.append(f"tokenizer tensor {name} holds values that are not finite")
    return reasons


def compile_table(
    system: System, config: RunConfig, alphabet: Alphabet, metadata: dict[str, Any] | None = None
) -> CompiledTable:
    """The table of a trained tokenizer with the linear encoder, its currents those of `inference` to the last bit."""
    reasons = table_refusals(system, config)
    if reasons:
        raise UnsupportedExport("has no table: " + "; ".join(reasons))
    found = BoundaryEngine(system, config).table
    assert found is not None  # the linear encoder has one
    _, current, gate = (value.detach().cpu().numpy() for value in found)
    return CompiledTable(
        alphabet=alphabet,
        current=current.astype(np.float32),
        hard=gate > 0,
        neuron=system.tokenizer.neuron.parameters_numpy(),
        metadata=metadata or {},
    )


def write_table(arguments: argparse.Namespace, run: Run) -> int:
    """`speak-export --to table`. The CPU computes the currents: another device's may differ in their last bits."""
    system = load_system(run, "cpu")
    if arguments.check:
        reasons = table_refusals(system, run.config)
        print("\n".join(reasons) if reasons else "exact: currents and gates depend on the character alone")
        if arguments.json:
            record = result_record(arguments.command_line, {"exact": not reasons, "reasons": reasons})
            write_json(arguments.json, record)
        return 2 if reasons else 0
    metadata = {
        "producer": "speak_neuro",
        "run": run.folder.resolve().name,
        "reset_mode": run.config.neuron.reset_mode,
        "versions": package_versions(),
    }
    table = compile_table(system, run.config, run.alphabet, metadata)
    out = arguments.out or run.folder / NAME
    if out.is_dir():
        out = out / NAME
    table.save(out)
    metrics = {"characters": len(table.alphabet), "hard": int(table.hard.sum())}
    print(f"wrote {out}: {metrics['characters']:,} characters, {metrics['hard']:,} of them reset hard")
    if arguments.json:
        write_json(arguments.json, result_record(arguments.command_line, metrics))
    return 0
