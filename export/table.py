"""Checkpoint to table: what the network computes for each character, once for all (see `speak_neuro.table.table`)."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from speak_neuro.common.files import write_json
from speak_neuro.common.provenance import package_versions, result_record
from speak_neuro.config import RunConfig
from speak_neuro.export.graph import UnsupportedExport
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.neuron.reference import GATE_RULE
from speak_neuro.systems.run_folder import Run, load_system
from speak_neuro.systems.system import System
from speak_neuro.table.table import CompiledTable
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.tokenizer.encoder import ConvolutionEncoder

NAME = "table.safetensors"


def table_refusals(system: System, config: RunConfig) -> list[str]:
    """Why this system has no table; empty when it has."""
    if not system.is_speak:
        return [f"the run's tokenizer is {config.tokenizer.kind}, which has no neuron; train with --tokenizer speak"]
    reasons = []
    encoder = config.tokenizer.encoder
    if encoder not in ("linear", "convolution"):
        sees = "of the last --context characters" if encoder == "window" else "of the whole text before"
        reasons.append(
            f"the {encoder} encoder is not linear over one-hot characters, but a function {sees}; "
            "train with --encoder linear or --encoder convolution"
        )
    if encoder == "convolution" and system.tokenizer.tanh:
        reasons.append("tanh of a sum is not a sum; train with --no-tanh")
    for name, value in system.tokenizer.state_dict().items():
        array = value.detach().cpu().numpy()
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            reasons.append(f"tokenizer tensor {name} holds values that are not finite")
    return reasons


def compile_table(
    system: System, config: RunConfig, alphabet: Alphabet, metadata: dict[str, Any] | None = None
) -> CompiledTable:
    """The table of a trained tokenizer, its currents those of `inference` to the last bit."""
    reasons = table_refusals(system, config)
    if reasons:
        raise UnsupportedExport("has no table: " + "; ".join(reasons))
    encoder = system.tokenizer.encoder
    if isinstance(encoder, ConvolutionEncoder):
        grid = system.tokenizer.grid
        tables = encoder.tables if grid is None else grid.features(encoder.tables, parts=True)
        parts = tables.detach().cpu().numpy().astype(np.float32)
        current, gate = parts[:, :, 0].copy(), parts[:, :, 1].copy()
    else:
        found = BoundaryEngine(system, config).table
        assert found is not None  # the linear encoder has one
        current, gate = (value.detach().cpu().numpy().astype(np.float32)[None] for value in found[1:])
    rule = GATE_RULE[system.tokenizer.neuron.mode]
    if rule is not None:
        gate[:] = 0
        gate[0] = 1 if rule else -1
    return CompiledTable(alphabet, current, gate, system.tokenizer.neuron.parameters_numpy(), metadata or {})


def write_table(arguments: argparse.Namespace, run: Run) -> int:
    """`speak-export --to table`. The CPU computes the currents: another device's may differ in their last bits."""
    if run.record.get("framework") == "rtok":
        raise UnsupportedExport(
            f"{run.folder}: an RTok tokenizer, whose text is normalised first and whose spikes open tokens; "
            "speak-tokenize does neither, so export it with --to nir --fold, or use speak_neuro.rtok"
        )
    system = load_system(run, "cpu")
    if arguments.check:
        reasons = table_refusals(system, run.config)
        print("\n".join(reasons) if reasons else "exact: currents and gates are sums over characters")
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
    metrics = {"characters": len(table.alphabet), "taps": table.taps}
    print(f"wrote {out}: {metrics['characters']:,} characters, a current looks at the last {table.taps}")
    if arguments.json:
        write_json(arguments.json, result_record(arguments.command_line, metrics))
    return 0
