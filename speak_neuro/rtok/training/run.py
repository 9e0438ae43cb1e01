"""A run of rtok.py: its request checked, its texts read, trained, scored, and written into its folder."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from speak_neuro.common.device import choose_device, describe_device
from speak_neuro.common.files import write_json
from speak_neuro.common.provenance import commit, package_versions, result_record
from speak_neuro.corpus.reader import embedded_text, read_text
from speak_neuro.rtok.pretrained.lora import load_adapter
from speak_neuro.rtok.tasks.examples import Example
from speak_neuro.rtok.tasks.task import Split, Task
from speak_neuro.rtok.text.normalise import WORD, normalise
from speak_neuro.rtok.tokenizers.baselines import language_models
from speak_neuro.rtok.tokenizers.sentencepiece import SentencePieceSegmenter
from speak_neuro.rtok.training import run_folder as runs
from speak_neuro.rtok.training.assemble import Parts, assemble
from speak_neuro.rtok.training.finetune import evaluate
from speak_neuro.rtok.training.request import Request, check_same, completed, request_of
from speak_neuro.training.checks import check_folder
from speak_neuro.training.metrics_log import read_metrics
from speak_neuro.training.run_lock import empty

UNIGRAMS = "unigrams"
"""The folder in a run's folder with the models of `zett-sentencepiece`."""


class Texts(NamedTuple):
    """The examples of a run."""

    train: Sequence[Example]
    select: Sequence[Example]
    scored: dict[Split, Sequence[Example]]
    mimic: list[list[str]]
    record: dict[str, Any]


def read_texts(request: Request, mimic: Sequence[str]) -> Texts:
    """Every split of the run, and the texts that its tokenizer mimics."""
    task, training = request.task, request.config.training

    def load(split: Split, limit: int) -> Sequence[Example]:
        return task.load(request.source, split.name, split.split, limit or None)

    examples = load(request.train, training.train_limit)
    select = load(request.select, training.evaluate_limit)
    scored = {split: load(split, training.evaluate_limit) for split in request.scored}
    record = {"source": request.source, "examples": len(examples), "sha256": digest(examples)}
    return Texts(examples, select, scored, mimic_texts(mimic), record)


def unigrams_of(arguments: argparse.Namespace, folder: Path, request: Request, texts: Texts) -> Any:
    """zett-sentencepiece's language models, learned or of the run's beginning; None for another tokenizer."""
    if request.tokenizer != "zett-sentencepiece":
        return None
    if arguments.resume and (folder / UNIGRAMS).is_dir():
        return SentencePieceSegmenter.load(folder / UNIGRAMS)
    parts = {request.train: texts.train, request.select: texts.select, **texts.scored}
    return language_models((request.task.language(split.name), part) for split, part in parts.items())


def reporter(task: Task, bar: Any) -> Callable[[dict[str, Any]], None]:
    """What the bar shows of a record of training."""

    def report(values: dict[str, Any]) -> None:
        if "loss" in values:
            bar.update(1)
            bar.set_postfix({"loss": f"{values['loss']:.3f}", "tokens": f"{values['average_length']:.1f}"})
        elif "epoch" in values:
            bar.write(
                f"epoch {values['epoch']}: validation {task.score} {values[f'valid_{task.score}']:.4f}, "
                f"{values['valid_average_length']:.2f} tokens",
                file=sys.stderr,
            )
        else:
            spike, rest = values["spike_accuracy"], values["rest_accuracy"]
            bar.set_postfix({"warm-up": values["warmup_epoch"], "spikes": f"{spike:.0%}", "rests": f"{rest:.0%}"})

    return report


def train_locked(arguments: argparse.Namespace, folder: Path) -> int:
    """`train` with the folder's lock."""
    request = request_of(arguments)
    check_folder(folder, bool(arguments.resume), arguments.overwrite)
    if arguments.resume:
        check_same(folder, completed(runs.read_description(folder)["settings"]), request.settings)
    texts = read_texts(request, arguments.mimic)

    if arguments.quiet:
        silence_transformers()
    device = choose_device(arguments.device)
    command = arguments.command_line
    unigrams = unigrams_of(arguments, folder, request, texts)
    parts = assemble(
        request.task,
        request.tokenizer,
        arguments.model,
        arguments.embedder,
        request.config,
        texts.train,
        texts.select,
        texts.mimic,
        request.train.name,
        device,
        unigrams,
        arguments.start_from,
    )
    tuner = parts.tuner
    progress: dict[str, Any] = {}
    if arguments.resume:
        if runs.has_begun(folder):
            progress, told = runs.load_state(folder, tuner, any_good=arguments.resume == "auto")
            for line in told:
                print(f"note: {line}", file=sys.stderr)
    else:
        empty(folder)
        record = {"data": texts.record, "command": command, "versions": package_versions(), "commit": commit()}
        runs.write_description(folder, {"settings": request.settings, **record, "device": describe_device(device)})
    if unigrams is not None:
        unigrams.save(folder / UNIGRAMS)

    bar = tqdm(total=tuner.steps, initial=tuner.step, unit="step", disable=arguments.quiet, dynamic_ncols=True)
    with bar:
        progress = runs.fit(
            folder,
            tuner,
            texts.select,
            request.task.language(request.select.name),
            parts.evaluation,
            reporter(request.task, bar),
            arguments.stop_after,
            progress,
        )
    if tuner.step < tuner.steps:
        print(f"stopped at step {tuner.step} of {tuner.steps}; go on with --resume --out {folder}")
        return 0
    evaluations = score(parts, request.task, texts.scored, folder, arguments.quiet)
    metrics = measured(request, texts, parts, progress, folder) | {"evaluations": evaluations}
    record = result_record(command, metrics, describe_device(device))
    write_json(folder / runs.RESULTS, record)
    if arguments.json:
        write_json(arguments.json, record)
    for split, found in evaluations.items():
        line = f"{found[request.task.score]:.4f}, average length {found['average_length']:.2f}"
        print(f"{split:20} {request.task.score} {line}")
    print(f"run folder {folder}")
    return 0


def score(
    parts: Parts, task: Task, scored: dict[Split, Sequence[Example]], folder: Path, quiet: bool
) -> dict[str, Any]:
    """The best epoch's model on every split."""
    tuner, evaluation = parts.tuner, parts.evaluation
    best = load_adapter(parts.encoder.model, parts.encoder.width, len(task.labels), task.per_word, folder / runs.BEST)
    tuner.model = tuner.accelerator.prepare_model(best, evaluation_mode=True)
    if tuner.joint is not None:
        evaluation = tuner.joint.reload(folder / runs.BEST / "tokenizer")
    evaluations: dict[str, Any] = {}
    for split, part in tqdm(scored.items(), desc="scoring", disable=quiet):
        began = time.perf_counter()
        found = evaluate(tuner, part, task.language(split.name), evaluation)
        evaluations[str(split)] = {**found, "seconds": round(time.perf_counter() - began, 2)}
    return evaluations


def measured(request: Request, texts: Texts, parts: Parts, progress: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What results.json holds beside the scores."""
    tuner = parts.tuner
    return {
        **request.settings,
        "score": request.task.score,
        "selected_epoch": progress["best_epoch"],
        "selected_score": progress["best"],
        "training_seconds": round(progress["seconds"], 2),
        "curve": [record for record in read_metrics(folder) if "epoch" in record],
        "merges": parts.merges,
        "entropy": parts.entropy,
        "parameters_trained": count(p for p in tuner.bare.parameters() if p.requires_grad) or parts.trained,
        "parameters_encoder": count(parts.encoder.model.parameters()),
        "parameters_tokenizer": count(tuner.joint.tokenizer.parameters()) if tuner.joint is not None else 0,
        "data": texts.record,
    }


def silence_transformers() -> None:
    """No bars of the library either."""
    with contextlib.suppress(ImportError):
        from transformers.utils import logging

        logging.disable_progress_bar()


def mimic_texts(names: Sequence[str]) -> list[list[str]]:
    """The lines of more texts, each as units of one word."""
    texts = []
    for name in names:
        text = embedded_text(name.removeprefix("embedded:")) if name.startswith("embedded:") else read_text(Path(name))
        for line in text.split("\n"):
            words = [WORD + word for word in normalise(line).split(WORD) if word]
            texts += [words[start : start + 25] for start in range(0, len(words), 25)]
    return texts


def digest(examples: Sequence[Any]) -> str:
    """SHA-256 of units and labels."""
    found = hashlib.sha256()
    for example in examples:
        found.update(repr((example.texts, example.labels)).encode())
    return found.hexdigest()


def count(parameters: Any) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in parameters)
