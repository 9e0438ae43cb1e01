"""`speak-export --to table`: a run's table in a file (see `speak_neuro.inference.compile_table`)."""

from __future__ import annotations

import argparse

from speak_neuro.common.files import legible
from speak_neuro.common.provenance import package_versions, write_result
from speak_neuro.errors import UnsupportedExport
from speak_neuro.inference.compile_table import compile_table, no_tables
from speak_neuro.systems.run_folder import Run, load_system

NAME = "table.safetensors"


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
        write_result(arguments, {"exact": not reasons, "reasons": reasons})
        return 2 if reasons else 0
    metadata = {
        "producer": "speak_neuro",
        "run": legible(run.folder.resolve().name),
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
    write_result(arguments, metrics)
    return 0
