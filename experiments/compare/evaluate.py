"""Score trained runs of any system on a whole text, and time their tokenization and their model (Table 4).

    python experiments/compare/evaluate.py --run runs/magnet runs/speak             each on its own test part
    python experiments/compare/evaluate.py --run runs/speak --text other.txt --json e.json  the whole of another text
    python experiments/compare/evaluate.py --run runs/speak --dtp                   2048 characters, the last 512 scored

BPC with a sliding context, SF, tokens, boundary and gate rate; parameters of language model and tokenizer; milliseconds
per batch. What each number means: docs/comparison.md. --json is read by tables.py, plot.py and collect.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from collect import write_compact
from records import flat_config
from texts import Text, Texts

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.files import legible
from speak_neuro.common.provenance import result_record
from speak_neuro.common.settings import to_dict
from speak_neuro.common.timing import in_turns
from speak_neuro.corpus.splits import PARTS
from speak_neuro.errors import SpeakError
from speak_neuro.training.sliding import default_stride

if TYPE_CHECKING:  # --help does not wait for torch
    import torch

    from speak_neuro.systems.run_folder import Run
    from speak_neuro.systems.system import System
    from speak_neuro.training.evaluation import Evaluation

DTP_WINDOW, DTP_STRIDE = 2048, 512


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="evaluate.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--run", nargs="+", type=Path, required=True, metavar="R", help="run folders of gtok.py")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--text", type=Path, help="UTF-8 text or folder of .txt files, scored whole")
    text.add_argument("--data", type=Path, help="text as gtok.py --data takes it (default: each run's own)")
    parser.add_argument("--part", choices=PARTS, default="test", help="part of --data to score (default: test)")
    parser.add_argument("--window", type=int, metavar="W", help="characters a window reads (default: as in training)")
    parser.add_argument("--stride", type=int, metavar="S", help="characters a window scores (default: half of W)")
    parser.add_argument(
        "--dtp",
        action="store_true",
        help=f"Dynamic Token Pooling's protocol: windows of {DTP_WINDOW}, {DTP_STRIDE} scored, growing at the start",
    )
    parser.add_argument("--batch", type=int, default=32, help="windows at a time (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--repeats", type=int, default=15, help="timed batches, 0 for no timing (default: %(default)s)")
    parser.add_argument("--time-batch", type=int, default=8, help="rows of a timed batch (default: %(default)s)")
    parser.add_argument("--time-length", type=int, help="characters of its rows (default: the training window)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return run_command(parser, evaluate, argv)


def evaluate(arguments: argparse.Namespace) -> int:
    """Check everything, then score the runs one after the other."""
    check(arguments)
    from tqdm import tqdm

    from speak_neuro.common.device import choose_device, describe_device
    from speak_neuro.systems.run_folder import load_system, read_run

    device = choose_device(arguments.device)
    runs = [read_run(folder) for folder in arguments.run]
    texts = Texts(arguments)
    for run in runs:
        texts.of(run)  # a missing text is found before anything is computed
        window, stride = protocol(arguments, run)
        if not 1 <= stride <= window:
            raise SpeakError(f"--stride is {stride}; allowed: 1 to the window, {window}")
    found = []
    for run in tqdm(runs, unit="run", disable=arguments.quiet or len(runs) < 2, dynamic_ncols=True):
        system = load_system(run, device)
        found.append(score(arguments, run, system, texts.of(run)))
        tell(found[-1])
    if arguments.json:
        metrics = {"config": {}, "runs": found}
        write_compact(arguments.json, result_record(arguments.command_line, metrics, describe_device(device)))
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Numbers and files, before torch is loaded."""
    at_least(arguments, 2, "window")
    at_least(arguments, 1, "stride", "batch", "time_batch", "time_length")
    at_least(arguments, 0, "repeats")
    if arguments.dtp and (arguments.window or arguments.stride):
        raise SpeakError("--dtp sets window and stride; leave --window and --stride away")


def protocol(arguments: argparse.Namespace, run: Run) -> tuple[int, int]:
    """Window and stride."""
    if arguments.dtp:
        return DTP_WINDOW, DTP_STRIDE
    window = arguments.window or run.config.training.window
    return window, arguments.stride or default_stride(window)


def score(arguments: argparse.Namespace, run: Run, system: System, text: Text) -> dict[str, Any]:
    """One run on one text, in the fields of `records.Record` and some more."""
    import torch

    from speak_neuro.supervision.exemplar import UnigramExemplar
    from speak_neuro.systems.run_folder import EXEMPLAR
    from speak_neuro.training.evaluation import evaluate as measure

    if len(text.text) < 2:
        raise SpeakError(f"{text.dataset}: {len(text.text)} characters; give a text of at least 2")
    ids = run.alphabet.encode(text.text)
    window, stride = protocol(arguments, run)
    exemplar = None
    if (run.folder / EXEMPLAR).is_file():
        exemplar = UnigramExemplar.load(run.folder / EXEMPLAR).boundaries(text.text)

    def once(targets: Any) -> Evaluation:
        torch.manual_seed(run.config.training.seed)  # for boundaries that are drawn
        return measure(system, ids, window, targets, arguments.batch, stride, arguments.dtp)

    began = time.perf_counter()
    found = once(exemplar)
    seconds = time.perf_counter() - began
    other = None
    if not system.is_speak and system.segmenter.samples:
        system.segmenter.sampled = not system.segmenter.sampled
        second = once(None)
        kind = "sampled" if system.segmenter.sampled else "likeliest"
        other = {"boundaries": kind, "bpc": second.bpc, "sf": second.shortening_factor}
        system.segmenter.sampled = not system.segmenter.sampled
    config = flat_config(to_dict(run.config))
    values = {
        "name": legible(run.folder.resolve().name),
        "system": run.config.tokenizer.kind,
        "dataset": text.dataset,
        "seed": run.config.training.seed,
        "config": config,
        "text": text.sha256,
        "bpc": found.bpc,
        "sf": found.shortening_factor,
        "token_dependence": found.token_dependence,
        "characters": found.characters,
        "tokens": found.tokens,
        "boundary_rate": found.tokens / found.characters,
        "gate_rate": found.gate_rate if system.is_speak else None,
        "boundary_f1": None if exemplar is None else found.boundary_f1,
        "unknown_characters": found.unknown_characters,
        "parameters_language_model": count(system.language_model),
        "parameters_tokenizer": count(system.boundary_module),
        "vocabulary": len(run.alphabet),
        "protocol": {"window": window, "stride": stride},
        "other": other,
        "seconds": round(seconds, 3),
        "timing": times(arguments, run, system, ids) if arguments.repeats else None,
    }
    return {key: value for key, value in values.items() if value is not None}


def times(arguments: argparse.Namespace, run: Run, system: System, ids: Any) -> dict[str, Any]:
    """Median milliseconds of a batch: of all that is needed for its boundaries, and of the model under them.

    A tokenizer that reads the language model's pre-layers cannot cut before they have run: their time counts for it,
    and their parameters are named as read.
    """
    import torch

    from speak_neuro.common.device import describe_device

    length = arguments.time_length or run.config.training.window
    device = next(system.parameters()).device
    size = (arguments.time_batch, length)
    rows = torch.from_numpy(np.resize(np.asarray(ids, dtype=np.int64), size)).to(device)
    model, reads = system.language_model, system.boundary_module.needs_hidden

    with torch.inference_mode():
        hidden = model.pre(rows)
        found = system.segment(rows, hidden)

        def tokenization() -> Any:
            return system.segment(rows, model.pre(rows) if reads else hidden)

        def whole_model() -> Any:
            return model.decode(model.pre(rows), found.boundaries, found.confidence)

        tokenization_ms = median_ms(tokenization, arguments.repeats, device)
        model_ms = median_ms(whole_model, arguments.repeats, device)
    read = (model.embedding, model.content_bias, model.distance_bias, model.pre_stack) if reads else ()
    return {
        "tokenization_ms": tokenization_ms,
        "model_ms": model_ms,
        "parameters_read": sum(item.numel() if isinstance(item, torch.Tensor) else count(item) for item in read),
        "batch": arguments.time_batch,
        "length": length,
        "sf": found.boundaries.numel() / max(int(found.boundaries.sum()), 1),
        "repeats": arguments.repeats,
        "threads": torch.get_num_threads(),
        "device": describe_device(device),
    }


def median_ms(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Median time of `work`, after one call that does not count."""
    from speak_neuro.common.device import wait

    return in_turns({"work": work}, repeats, finish=lambda: wait(device))["work"].wall * 1e3


def count(module: Any) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def tell(found: dict[str, Any]) -> None:
    """One run in two or three lines."""
    gate = f", gate rate {found['gate_rate']:.1%}" if "gate_rate" in found else ""
    if "other" in found:
        other = found["other"]
        print(f"  with {other['boundaries']} boundaries: bpc {other['bpc']:.4f}, sf {other['sf']:.3f}")
    model, own = found["parameters_language_model"], found["parameters_tokenizer"]
    print(
        f"{found['name']}: {found['system']} on {found['dataset']}: bpc {found['bpc']:.4f}, sf {found['sf']:.3f}, "
        f"{found['tokens']:,} tokens of {found['characters']:,} characters, boundary rate {found['boundary_rate']:.4f}"
        f"{gate}, token dependence {found['token_dependence']:.4f} "
        f"(window {found['protocol']['window']}, stride {found['protocol']['stride']})"
    )
    line = f"  parameters: language model {model:,}, tokenizer {own:,} ({own / (model + own):.1%} of all)"
    timing = found.get("timing")
    if timing:
        line += (
            f", reading {timing['parameters_read']:,} of the model's\n  per batch of {timing['batch']} x "
            f"{timing['length']}: tokenization {timing['tokenization_ms']:.2f} ms, model {timing['model_ms']:.2f} ms "
            f"(median of {timing['repeats']}, {timing['device']}, {timing['threads']} thread(s))"
        )
    print(line)
    if found["unknown_characters"]:
        print(f"  {found['unknown_characters']:,} characters are not in the run's alphabet", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
