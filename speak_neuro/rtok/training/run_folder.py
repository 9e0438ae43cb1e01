"""The run folder of an RTok experiment, and the loop that fills it.

config.json          schema, task, tokenizer, models, data, settings, versions, commit, device
state.safetensors    LoRA, classifier, optimisers, tokenizer, proxies, random state, after each epoch and at Ctrl-C
state-N.safetensors  the checkpoint before it, of step N
best/                the epoch with the best score on the selecting split: adapter as peft writes it, tokenizer/
metrics.jsonl        one line a step, one an epoch
results.json         scores of every evaluated split
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.digests import DIGEST, check_digest, digest_of
from speak_neuro.common.files import write_json
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import read_whole
from speak_neuro.common.tensors import read_tensors
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.lora import save_adapter
from speak_neuro.rtok.tasks.examples import Example
from speak_neuro.rtok.text.segmenter import Segmenter
from speak_neuro.rtok.training.finetune import FineTuner, evaluate, train_step
from speak_neuro.systems.run_folder import RUN
from speak_neuro.training.checkpoints import Checkpoint, earlier
from speak_neuro.training.checkpoints import load_state as load_checkpoint
from speak_neuro.training.checkpoints import save_state as save_checkpoint
from speak_neuro.training.fit import EXPLODED, interrupt_held, stop_exploded
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


def identity_of(described: dict[str, Any]) -> str:
    """What is trained on what: the same for all files of a run."""
    return digest_of({name: described.get(name) for name in ("settings", "data")})


def save_state(folder: Path, tuner: FineTuner, progress: dict[str, Any]) -> None:
    """Write state.safetensors; the checkpoint before it is kept."""
    tensors, metadata = tuner.snapshot()
    described = {RUN: identity_of(read_description(folder))} if (folder / CONFIG).exists() else {}
    save_checkpoint(folder, tensors, {**metadata, **progress, **described}, tuner.saved_step)
    tuner.saved_step = tuner.step


def read_state(folder: Path, path: Path) -> Checkpoint:
    """A checkpoint of the folder's own run. Runs of the first schema have no digests and do not say whose they are."""
    described = read_description(folder) if (folder / CONFIG).exists() else {}
    tensors, metadata = read_tensors(path, checked=described.get("schema") == SCHEMA)
    stated = metadata.get(RUN)
    if described and stated is not None and stated != identity_of(described):
        raise SpeakError(f"{path}: belongs to another run than {folder / CONFIG}; restore the run's own file")
    return tensors, metadata


def load_state(folder: Path, tuner: FineTuner, any_good: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Bring a fresh tuner to the folder's last checkpoint, or with `any_good` to the newest whole one.

    Returns the progress saved with it, and what to tell.
    """
    tensors, metadata, path, faults = load_checkpoint(folder, any_good, read_state)
    tuner.restore(tensors, metadata, path)
    tuner.saved_step = None if faults else tuner.step
    progress = {name: value for name, value in metadata.items() if name not in ("step", DIGEST, RUN)}
    return progress, [*faults, f"{path}: going on from step {tuner.step}"] if any_good else []


def has_begun(folder: Path) -> bool:
    """Whether a checkpoint can be expected; a run that was killed in its first epoch has none and begins anew."""
    return (folder / STATE).exists() or bool(earlier(folder)) or (folder / BEST).exists()


def check_finite(tuner: FineTuner, values: dict[str, Any]) -> None:
    """Stop a run that has exploded; its checkpoints hold the finite state before."""
    which = [example.identifier for example in tuner.rows(tuner.step - 1)]
    limit = EXPLODED * math.log(len(tuner.task.labels))
    remedy = "lower --learning-rate or --tokenizer-learning-rate"
    stop_exploded(values, "loss", limit, "examples", which, tuner.saved_step, remedy)


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
            tuner.joint.begin(tuner.examples)
            progress["seconds"] += time.perf_counter() - began
        while tuner.step < last:
            began = time.perf_counter()
            values = train_step(tuner)
            seconds = time.perf_counter() - began
            progress["seconds"] += seconds
            check_finite(tuner, values)
            record({**values, "seconds": round(seconds, 4)})
            over = tuner.step % tuner.steps_per_epoch == 0
            if over:
                with contextlib.nullcontext() if tuner.joint is None else tuner.joint.at_target(select):
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
