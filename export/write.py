"""A run's graph and its trace, or another form of it, written to files."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from speak_neuro.common.device import choose_device, describe_device
from speak_neuro.common.files import check_writable, legible
from speak_neuro.common.provenance import package_versions, write_result
from speak_neuro.common.tensors import tensors_digest
from speak_neuro.corpus.reader import embedded_text, read_text
from speak_neuro.corpus.splits import split
from speak_neuro.errors import SpeakError
from speak_neuro.export.check import check
from speak_neuro.export.files.neuron_file import write_neuron
from speak_neuro.export.files.trace_file import WEIGHTS, Trace, write_trace
from speak_neuro.export.forms import convention_of, counted, provenance, wanted, write_forms
from speak_neuro.export.graph import export_neuron
from speak_neuro.export.table import write_table
from speak_neuro.export.trace import run_trace, trace_rows
from speak_neuro.inference.engine import BLOCK, BoundaryEngine
from speak_neuro.inference.speak import Speak
from speak_neuro.rtok.text.normalise import WORD, normalise
from speak_neuro.rtok.tokenizers.speak import FRAMEWORK, UNIT_BLOCK, check_look_ahead
from speak_neuro.systems.run_folder import Run, load_system, read_run
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import UNKNOWN


def write(arguments: argparse.Namespace) -> int:
    """Write the graph, then the trace; nothing is written when either is impossible."""
    run = read_run(arguments.run)
    out = arguments.out or arguments.run
    if arguments.to == "table":
        if wanted(arguments):
            raise SpeakError("--fold, --lower and --approximate make NIR graphs; leave them away, or give --to nir")
        return write_table(arguments, run)
    check_writable(out / "boundary.nir")

    device = choose_device(arguments.device)
    system = load_system(run, device)
    if arguments.check:
        return check(arguments, run, system)
    if wanted(arguments):
        return write_forms(arguments, run, system, lambda: traced(arguments, run, system))

    reader = "import speak_neuro.export.files.nir_node and call register() before nir.read"
    exported = export_neuron(system, {**provenance(run, system), "reader": reader})
    trace = None if arguments.no_trace else traced(arguments, run, system)
    write_neuron(out / "boundary.nir", exported, exported.metadata)
    written = [out / "boundary.nir"]
    metrics = {"features": exported.weight.shape[1], "neurons": len(exported.threshold)}
    if trace is not None:
        write_trace(out / "trace.npz", trace)
        written.append(out / "trace.npz")
        metrics |= {
            "rows": len(trace.length),
            "characters": int(trace.length.sum()),
            "spikes": int(trace.spikes.sum()),
        }
    print("wrote " + " and ".join(map(str, written)) + ": " + counted(metrics))
    write_result(arguments, metrics)
    return 0


def traced(arguments: argparse.Namespace, run: Run, system: System) -> Trace:
    """The run on the text that the flags name."""
    device = choose_device(arguments.device)
    text = read_text(arguments.text) if arguments.text else split(embedded_text("en")).test
    units = run.record.get("framework") == FRAMEWORK
    ahead = check_look_ahead(run.record.get("look_ahead", 0), run.folder)
    if units:
        text = "\n".join(map(normalise, text.split("\n")))  # a line is a unit
    found = trace_rows(text, arguments.row_length)
    rows = [row + WORD * ahead for row in found[: arguments.rows]]
    if len(found) > len(rows) and not arguments.quiet:
        print(f"the text has {len(found):,} rows, the trace takes the first {len(rows):,}: see --rows", file=sys.stderr)
    unknown, characters = sum(int((run.alphabet.encode(row) == UNKNOWN).sum()) for row in rows), sum(map(len, rows))
    if unknown and not arguments.quiet:
        hint = "" if arguments.text else "; --text names another text than the embedded English one"
        print(
            f"{unknown:,} of the trace's {characters:,} characters are not in the run's alphabet{hint}", file=sys.stderr
        )
    meta = {
        "device": describe_device(device) if device.type == "cuda" else "cpu",
        "dtype": "float32",
        "versions": package_versions(),
        "run": legible(run.folder.resolve().name),
        WEIGHTS: tensors_digest(system.state_dict()),
        "text": str(arguments.text.name) if arguments.text else "embedded en, test part",
        **convention_of(run),
    }
    speak = Speak(BoundaryEngine(system, run.config, UNIT_BLOCK if units else BLOCK), run.alphabet)
    with tqdm(total=len(rows), unit="row", desc="trace", disable=arguments.quiet, delay=1) as bar:
        return run_trace(speak, rows, meta, bar.update, entropy=not units)
