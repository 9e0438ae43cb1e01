"""A small decoder on frozen tokenizers (paper, appendix A.3): SPEAK's ids against BPE's and Unigram's, equally many.

    python experiments/decoder_lm.py texts/en --run runs/en --out runs/decoder --json decoder_lm.json

A Llama of transformers, from scratch, one for each tokenizer, budget and seed. The tokenizers are learned from the
beginning of train.txt and never change. All have vocabularies of one size, so the models are the same to the last
weight, and two budgets are equal:

    ids     as many steps, so as many ids and as many FLOPs: longer ids have read more text
    text    as many characters as BPE reads in those steps: longer ids have taken fewer steps and FLOPs

    bits per character = - sum over ids of log2 p(id | up to `--window` ids before it) / characters of test.txt

The ids are one way of many to write the text, so this is an upper bound, for each tokenizer alike. Seeds are paired: of
one seed all models begin with the same weights and read the same places of the text in the same order.

Each result is a file in --out and is not computed again, so that the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from speak_neuro.common.command import run_command
from speak_neuro.common.files import write_json
from speak_neuro.common.json_files import Strict, read_json
from speak_neuro.common.provenance import write_result
from speak_neuro.common.seeds import P, compare, p_value, sample
from speak_neuro.errors import ParityError, SpeakError

IdArray = npt.NDArray[np.int64]
TOKENIZERS = ("SPEAK", "BPE", "Unigram")
BUDGETS = ("ids", "text")
REFERENCE = "BPE"
PEERS = {"BPE": "bpe", "Unigram": "unigram-bytes"}
WARMUP, RATE, BETAS, DECAY, CLIP = 0.1, 3e-3, (0.9, 0.95), 0.1, 1.0


@dataclass(frozen=True)
class Size:
    """The model and its reading."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    window: int
    batch: int
    steps: int

    def flops(self, parameters: int) -> float:
        """Of a training step for one id: 6 for each weight of a matrix, and attention to half a window."""
        return 6 * parameters + 6 * self.layers * self.width * self.window


class Cell(Strict):
    """A result file."""

    settings: dict[str, Any]
    result: dict[str, Any]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="decoder_lm.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", type=Path, help="folder with train.txt and test.txt")
    parser.add_argument("--run", type=Path, required=True, help="run folder of SPEAK")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", default="1,2,3", help="comma-separated (default: 1,2,3)")
    parser.add_argument("--budgets", default=",".join(BUDGETS), help=f"of {', '.join(BUDGETS)} (default: both)")
    parser.add_argument("--learn-characters", type=int, default=1_000_000, help="a vocabulary's text (1,000,000)")
    parser.add_argument("--train-characters", type=int, default=4_000_000, help="the models' text (4,000,000)")
    parser.add_argument("--test-characters", type=int, default=50_000, help="scored (50,000)")
    for name, value, what in (
        ("vocabulary", 4096, "ids"),
        ("width", 128, "of the model"),
        ("layers", 3, "of the model"),
        ("heads", 4, "of attention"),
        ("inner", 384, "width of the feed-forward layers"),
        ("window", 128, "ids that a model sees"),
        ("batch", 16, "windows in a step"),
        ("steps", 200, "at the budget `ids`"),
    ):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{what} (default: {value})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(build_parser(), measure, argv)


def measure(arguments: argparse.Namespace) -> int:
    """Every cell that has no result yet, then the table."""
    unknown = set(arguments.budgets.split(",")) - set(BUDGETS)
    if unknown:
        raise SpeakError(f"--budgets has {', '.join(sorted(unknown))}; allowed: {', '.join(BUDGETS)}")
    size = Size(**{name: getattr(arguments, name) for name in Size.__dataclass_fields__})
    train = read(arguments.data / "train.txt", max(arguments.train_characters, arguments.learn_characters))
    test = read(arguments.data / "test.txt", arguments.test_characters)
    encoders = learn(arguments.run, train[: arguments.learn_characters], size.vocabulary)
    train = train[: arguments.train_characters]
    ids = {name: (encode(train), encode(test)) for name, encode in encoders.items()}
    facts = {
        name: {"characters_per_id": len(train) / len(a), "test_characters_per_id": len(test) / len(b)}
        for name, (a, b) in ids.items()
    }
    cells: dict[str, dict[str, Any]] = {}
    for seed in map(int, arguments.seeds.split(",")):
        for budget in arguments.budgets.split(","):
            for name in TOKENIZERS:
                own = round(size.steps * facts[REFERENCE]["characters_per_id"] / facts[name]["characters_per_id"])
                steps = size.steps if budget == "ids" else own
                about = {"tokenizer": name, "seed": seed, **asdict(size), **facts[name], "steps": steps}
                about |= {"train_characters": len(train), "test_characters": len(test)}
                compute = functools.partial(score, size, steps, *ids[name], seed, len(test))
                found = cell(arguments.out, about, compute)
                cells[f"{name}, {budget}, {seed}"] = {"budget": budget, **about, **found}
                print(f"{name}, equal {budget}, seed {seed}: {found['bits_per_character']:.4f} bits per character")
    metrics = {"cells": cells, "table": table(cells)}
    for line in metrics["table"]:
        print("  ".join(f"{key} {value}" for key, value in line.items()))
    write_result(arguments, metrics)
    return 0


def read(path: Path, characters: int) -> str:
    """The first characters of a text."""
    if not path.is_file():
        raise SpeakError(
            f"{path}: is not there; give a folder with train.txt and test.txt (experiments/corpora/make.py)"
        )
    with path.open(encoding="utf-8", newline="") as stream:
        return stream.read(characters)


def learn(run: Path, text: str, size: int) -> dict[str, Callable[[str], IdArray]]:
    """The tokenizers, each with `size` ids, as functions from text to ids."""
    from speak_neuro.api.tokenizer import Tokenizer
    from speak_neuro.inference.subwords import train_subwords

    speak = Tokenizer.load(run).learn_vocabulary([text], size)
    library = {name: train_subwords(kind, size, [text], least=2) for name, kind in PEERS.items()}
    sizes = {"SPEAK": speak.vocab_size} | {name: made.get_vocab_size() for name, made in library.items()}
    if set(sizes.values()) != {size}:
        raise SpeakError(f"--vocabulary is {size}, the text gives {sizes}; take fewer, or more --learn-characters")

    def of_speak(given: str) -> IdArray:
        found = speak.encode(given)
        if speak.decode(found) != given:
            raise ParityError("SPEAK's ids do not give the text back")
        return found.astype(np.int64)

    def of_library(made: Any) -> Callable[[str], IdArray]:
        def encode(given: str) -> IdArray:
            found = [made.encode(line).ids for line in given.splitlines(keepends=True)]
            ids = np.concatenate([np.array(line, dtype=np.int64) for line in found])
            if made.decode(ids.tolist(), skip_special_tokens=False) != given:
                raise ParityError("ids do not give the text back")
            return ids

        return encode

    return {"SPEAK": of_speak} | {name: of_library(made) for name, made in library.items()}


def cell(folder: Path, about: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result from its file, or computed and written there."""
    path = folder / f"{about['tokenizer']}-{about['steps']}-{about['seed']}.json"
    if path.is_file():
        before = read_json(path, Cell, "give another --out, or remove the file")
        if before.settings != about:
            raise SpeakError(f"{path}: is of other settings; give another --out, or remove the file")
        return before.result
    folder.mkdir(parents=True, exist_ok=True)
    found = compute()
    write_json(path, {"settings": about, "result": found})
    return found


def build(size: Size, seed: int) -> Any:
    """A Llama of this size with the weights of `seed`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size.vocabulary,
            hidden_size=size.width,
            intermediate_size=size.inner,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            max_position_embeddings=size.window,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )


def score(size: Size, steps: int, train: IdArray, test: IdArray, seed: int, characters: int) -> dict[str, Any]:
    """Train a model and score the test text."""
    import torch

    begin = time.process_time()
    model = build(size, seed)
    rates = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY)
    warm = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(rates, lambda k: min((k + 1) / warm, (steps - k) / (steps - warm + 1)))
    draw = np.random.default_rng(seed)
    length = size.window + 1
    model.train()
    for _ in range(steps):
        places = (draw.random(size.batch) * (len(train) - length)).astype(np.int64)
        rows = torch.from_numpy(train[places[:, None] + np.arange(length)])
        loss = losses(model, rows).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        rates.step()
        schedule.step()
        rates.zero_grad()
    weights = sum(p.numel() for p in model.parameters() if p.ndim == 2)  # the embedding is the output's matrix too
    return {
        "bits_per_character": bits(model, test, size) / characters,
        "ids_read": steps * size.batch * size.window,
        "flops": steps * size.batch * size.window * size.flops(weights),
        "parameters": sum(p.numel() for p in model.parameters()),
        "processor_seconds": time.process_time() - begin,
    }


def losses(model: Any, rows: Any) -> Any:
    """(B, T) nats of the ids behind the first of each row (B, T + 1)."""
    import torch

    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(rows[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), rows[:, 1:], reduction="none")


def bits(model: Any, ids: IdArray, size: Size) -> float:
    """Bits of the ids: each with at least half a window before it, or all there is; the first by chance."""
    import torch

    model.eval()
    half = size.window // 2
    total = math.log(size.vocabulary)
    with torch.no_grad():
        for start in range(0, len(ids) - 1, half):
            row = torch.from_numpy(ids[start : start + size.window + 1])[None]
            if start and row.shape[1] <= half + 1:
                break
            total += float(losses(model, row)[0, half if start else 0 :].sum())
    return total / math.log(2)


def table(cells: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """A line for each tokenizer and budget, compared with BPE seed by seed."""
    found = {
        (budget, name): {
            cell["seed"]: cell["bits_per_character"]
            for cell in cells.values()
            if cell["budget"] == budget and cell["tokenizer"] == name
        }
        for budget in dict.fromkeys(cell["budget"] for cell in cells.values())
        for name in TOKENIZERS
    }
    lines = []
    for (budget, name), values in found.items():
        mean = sample(list(values.values()))
        spread = "" if mean.deviation is None else f" ± {mean.deviation:.4f}"
        against = compare(values, found[budget, REFERENCE]) if name != REFERENCE else None
        lines.append(
            {
                "equal": budget,
                "tokenizer": name,
                "bits per character": f"{mean.mean:.4f}{spread}",
                "against BPE": "" if against is None else f"{100 * against.relative:+.2f} %",
                P: p_value(against),
            }
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
