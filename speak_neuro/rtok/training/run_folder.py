"""The run folder of an RTok experiment, and the loop that fills it.

config.json          schema, task, tokenizer, models, data, settings, versions, commit, device
state.safetensors    LoRA, classifier, optimisers, tokenizer, proxies, random state, after each epoch and at Ctrl-C
best/                the epoch with the best score on the selecting split: adapter as peft writes it, tokenizer/
metrics.jsonl        one line a step, one an epoch
results.json         scores of every evaluated split
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.digests import DIGEST, check_digest, digest_of
from speak_neuro.common.files import write_json
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import read_whole
from speak_neuro.common.tensors import read_tensors, write_tensors
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.lora import save_adapter
from speak_neuro.rtok.tasks.examples import Example
from speak_neuro.rtok.text.segmenter import Segmenter
from speak_neuro.rtok.training.finetune import FineTuner, evaluate, train_step
from speak_neuro.training.fit import interrupt_held
from speak_neuro.training.metrics_log import MetricsLog

SCHEMA = 2
CONFIG, STATE, BEST, RESULTS = "config.json", "state.safetensors", "best", "results.json"
Report = Callable[[dict[str, Any]], None]


def write_description(folder: Path, values: dict[str, Any]) -> None:
    """Write config.json; `values["settings"]` is what a resume has to have in common."""
    described = {"schema": SCHEMA, "framework": "rtok-task", **values}
    write_json(folder / CONFIG, {**described, DIGEST: digest_of(described)})


def read_description(folder: Path) -> dict[str, Any]:
    """Read config.json."""
    path = folder / CONFIG
    advice = "restore it or train again"
    try:
        values = parse_json(read_whole(path, advice), str(path), advice)
    except FileNotFoundError:
        raise SpeakError(f"{folder}: holds no {CONFIG}, so it is no run folder; name a run's --out") from None
    if (
        not isinstance(values, dict)
        or values.get("framework") != "rtok-task"
        or values.get("schema") not in (1, SCHEMA)
    ):
        raise SpeakError(f"{path}: not written by this version's experiments/rtok.py; name another run's --out")
    if values["schema"] == SCHEMA:
        check_digest(values, None, path, advice)
    return {name: value for name, value in values.items() if name != DIGEST}


def save_state(folder: Path, tuner: FineTuner, progress: dict[str, Any]) -> None:
    """Write state.safetensors."""
    tensors, metadata = tuner.snapshot()
    write_tensors(folder / STATE, tensors, {**metadata, **progress})


def load_state(folder: Path, tuner: FineTuner) -> dict[str, Any]:
    """Bring a fresh tuner to the folder's last checkpoint; returns the progress saved with it."""
    tensors, metadata = read_tensors(folder / STATE)
    tuner.restore(tensors, metadata, folder / STATE)
    return {name: value for name, value in metadata.items() if name not in ("step", DIGEST)}


def save_best(folder: Path, tuner: FineTuner) -> None:
    """Replace best/ by the present weights: a folder written beside it and renamed."""
    fresh, target = folder / f"{BEST}.tmp", folder / BEST
    shutil.rmtree(fresh, ignore_errors=True)
    save_adapter(tuner.bare, fresh)
    if tuner.joint is not None:
        tuner.joint.tokenizer.save(fresh / "tokenizer")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def fit(
    folder: Path,
    tuner: FineTuner,
    select: Sequence[Example],
    select_language: str,
    evaluation: Segmenter,
    report: Report,
    stop_after: int | None = None,
    progress: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train to the last epoch (or step `stop_after`); returns the best score, its epoch and the seconds of training."""
    progress = {"best": -1.0, "best_epoch": 0, "seconds": 0.0, **(progress or {})}
    log = MetricsLog(folder, tuner.step or -1)  # a run that was killed in its warm-up begins anew

    def record(values: dict[str, Any]) -> None:
        log.append(values)
        report(values)

    last = tuner.steps if stop_after is None else min(tuner.steps, stop_after)
    with interrupt_held() as interrupted:
        if tuner.joint is not None and tuner.step == 0:
            began = time.perf_counter()
            tuner.joint.warm_up(tuner.examples, tuner.config.batch, lambda values: record({"step": 0, **values}))
            progress["seconds"] += time.perf_counter() - began
        while tuner.step < last:
            began = time.perf_counter()
            values = train_step(tuner)
            seconds = time.perf_counter() - began
            progress["seconds"] += seconds
            record({**values, "seconds": round(seconds, 4)})
            over = tuner.step % tuner.steps_per_epoch == 0
            if over:
                found = evaluate(tuner, select, select_language, evaluation)
                record({"step": tuner.step, "epoch": tuner.epoch, **{f"valid_{n}": v for n, v in found.items()}})
                if found[tuner.task.score] > progress["best"]:
                    progress.update(best=found[tuner.task.score], best_epoch=tuner.epoch)
                    save_best(folder, tuner)
            stop = interrupted()
            if over or stop or tuner.step == last:
                save_state(folder, tuner, progress)
            if stop:
                raise KeyboardInterrupt(f"step {tuner.step} of {tuner.steps} is saved, --resume goes on from there")
    return progress
