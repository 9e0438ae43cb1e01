"""Checkpoint to table: what the network computes for each character, once for all (see `speak_neuro.table.table`)."""

from __future__ import annotations

import argparse
from typing import Any

from speak_neuro.common.files import write_json
from speak_neuro.common.provenance import package_versions, result_record
from speak_neuro.config import RunConfig
from speak_neuro.export.fold import character_tables, no_tables
from speak_neuro.export.graph import UnsupportedExport
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.systems.run_folder import Run, load_system
from speak_neuro.systems.system import System
from speak_neuro.table.table import CompiledTable
from speak_neuro.text.alphabet import Alphabet

NAME = "table.safetensors"


def compile_table(
    system: System, config: RunConfig, alphabet: Alphabet, metadata: dict[str, Any] | None = None
) -> CompiledTable:
    """The table of a trained tokenizer, its currents those of `inference` to the last bit."""
    reasons = no_tables(system)
    if reasons:
        raise UnsupportedExport("has no table: " + "; ".join(reasons))
    parts = character_tables(BoundaryEngine(system, config))
    current, gate = parts[:, 0].copy(), parts[:, 1].copy()
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
        reasons = no_tables(system)
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
