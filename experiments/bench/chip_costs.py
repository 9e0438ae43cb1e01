"""What trained tokenizers cost on chip, per character, beside a byte-pair tokenizer on this machine's processor.

    python experiments/bench/chip_costs.py --run runs/context/linear runs/context/convolution-4 --json chip_costs.json

Tokenizers that fold are counted whole; of the others the readout and the neuron are, on real-valued features, and the
encoder's parameters, which stay on the host, are named. Energies are estimates from published figures; the processor's
is its measured time multiplied by an assumed power.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chip_costs.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--run", type=Path, nargs="+", required=True, help="run folders of experiments/gtok.py")
    parser.add_argument("--text", type=Path, help="UTF-8 text (default: the test part of the embedded text)")
    parser.add_argument("--characters", type=int, default=50000, help="use so many of its characters (default: 50000)")
    parser.add_argument("--vocabulary", type=int, default=5000, help="pieces of the byte-pair tokenizer (5000)")
    parser.add_argument("--repeats", type=int, default=7, help="timed passes, of which the median counts (default: 7)")
    parser.add_argument(
        "--watts", type=float, default=5.0, help="assumed power of one busy processor core (default: 5.0)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    return run_command(parser, measure, argv)


def measure(arguments: argparse.Namespace) -> int:
    """Count, time, print the table."""
    from speak_neuro.corpus.reader import embedded_text, read_text
    from speak_neuro.corpus.splits import split
    from speak_neuro.export.graphs.costs import LOIHI

    for name in ("characters", "vocabulary", "repeats", "watts"):
        if getattr(arguments, name) <= 0:
            raise SpeakError(f"--{name} is {getattr(arguments, name)}; allowed: above 0")
    parts = split(embedded_text("en"))
    text = (read_text(arguments.text) if arguments.text else parts.test)[: arguments.characters]
    lines = [line for line in text.split("\n") if line]
    if not lines:
        raise SpeakError("the text has no line with a character in it; give another --text")
    rows = [{"run": str(folder), **tokenizer_costs(folder, lines)} for folder in arguments.run]
    processor = byte_pair_costs(parts.train, lines, arguments.vocabulary, arguments.repeats)
    processor["picojoules"] = processor["seconds_per_character"] * arguments.watts * 1e12
    processor["assumption"] = f"{arguments.watts:g} W for one busy core, assumed, not measured"
    figures = {name: asdict(figure) for name, figure in LOIHI.items()}

    print(f"{sum(map(len, lines)):,} characters, means per character; energies are estimates")
    titles = ["tokenizer", "dense", "ACs", "MACs", "updates", "spikes", "sparsity", "bytes", "est. pJ"]
    print(" ".join(f"{title:>24}" if not i else f"{title:>9}" for i, title in enumerate(titles)))
    for row in rows:
        numbers = [row["dense_synops"], row["effective_acs"], row["effective_macs"], row["neuron_updates"]]
        numbers += [row["output_spikes"], row["activation_sparsity"], row["footprint_bytes"], row["picojoules"]]
        print(f"{row['name']:>24} " + " ".join(f"{n:>9,.4g}" if n < 1e5 else f"{n:>9,.0f}" for n in numbers))
        if row["host_parameters"]:
            print(f"{'':>24} on the host, not counted: an encoder of {row['host_parameters']:,} parameters")
    print(
        f"byte-pair tokenizer, {processor['pieces']:,} pieces, one thread: "
        f"{1e9 * processor['seconds_per_character']:,.1f} ns, about {processor['picojoules']:,.0f} pJ per character "
        f"({processor['assumption']})"
    )
    metrics = {"tokenizers": rows, "byte_pair": processor, "figures": figures}
    write_result(arguments, metrics)
    return 0


def tokenizer_costs(folder: Path, lines: list[str]) -> dict[str, Any]:
    """Counts for one run folder."""
    import numpy as np

    from speak_neuro.export.fold import fold, fold_refusals
    from speak_neuro.export.graph import export_neuron
    from speak_neuro.export.graphs.costs import folded_costs, readout_costs
    from speak_neuro.inference.engine import BoundaryEngine
    from speak_neuro.inference.speak import Speak
    from speak_neuro.systems.run_folder import load_system, read_run

    run = read_run(folder)
    system = load_system(run)
    engine = BoundaryEngine(system, run.config)
    encoder = run.config.tokenizer.encoder
    if not fold_refusals(engine):
        costs = folded_costs(fold(engine), (run.alphabet.encode(line) for line in lines))
        k = run.config.tokenizer.context if encoder == "convolution" else 1
        return {"name": f"{encoder}, k = {k}, folded", "host_parameters": 0, **costs.to_json()}
    speak = Speak(engine, run.alphabet)
    traces = [speak.trace(line) for line in lines]
    features = np.concatenate([trace.features for trace in traces])[None]
    spikes = np.concatenate([trace.spikes for trace in traces])[None]
    costs = readout_costs(export_neuron(system), features, spikes, np.ones(spikes.shape, dtype=bool))
    host = sum(p.numel() for p in system.tokenizer.encoder.parameters())
    if system.tokenizer.needs_hidden:
        host += sum(p.numel() for p in system.language_model.embedding.parameters())
        host += sum(p.numel() for p in system.language_model.pre_stack.parameters())
    return {"name": f"{encoder}, readout", "host_parameters": host, **costs.to_json()}


def byte_pair_costs(train: str, lines: list[str], vocabulary: int, repeats: int) -> dict[str, Any]:
    """Processor time of a Hugging Face byte-level BPE tokenizer over the lines, on one thread."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(train.split("\n"), vocab_size=vocabulary, show_progress=False)
    seconds, tokens = [], 0
    for _ in range(repeats):
        started = time.process_time()
        encoded = tokenizer.encode_batch(lines)
        seconds.append(time.process_time() - started)
        tokens = sum(len(line.ids) for line in encoded)
    characters = sum(map(len, lines))
    return {
        "pieces": tokenizer.get_vocab_size(),
        "seconds_per_character": statistics.median(seconds) / characters,
        "seconds": seconds,
        "tokens": tokens,
        "characters": characters,
    }


if __name__ == "__main__":
    raise SystemExit(main())
