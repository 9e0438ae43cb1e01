"""The training loop: steps, evaluations, checkpoints and the log, in a run folder that survives interruption."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.checkpoint import STATE, MetricsLog, read_tensors, save_model, write_tensors
from speak_neuro.evaluation import evaluate
from speak_neuro.train import Trainer, train_step

Report = Callable[[dict[str, Any]], None]


def save_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Write state.safetensors and model.safetensors, each in one rename."""
    tensors, metadata = trainer.snapshot()
    write_tensors(folder / STATE, tensors, metadata)
    save_model(folder, trainer.system)


def resume(folder: Path, trainer: Trainer) -> None:
    """Bring a fresh trainer to the folder's last checkpoint."""
    tensors, metadata = read_tensors(folder / STATE)
    trainer.restore(tensors, metadata, folder / STATE)


def fit(
    folder: Path,
    trainer: Trainer,
    valid_ids: npt.NDArray[np.int32],
    valid_exemplar: npt.NDArray[np.bool_] | None = None,
    report: Report | None = None,
    stop_after: int | None = None,
) -> None:
    """Train to the configured step (or `stop_after`), evaluating and saving on the way.

    Every record written to metrics.jsonl is also given to `report`. An interrupt saves a checkpoint before it goes on.
    """
    config = trainer.config
    log = MetricsLog(folder, trainer.step)
    last = min(config.steps, stop_after or config.steps)
    saved = -1
    try:
        while trainer.step < last:
            began = time.perf_counter()
            record: dict[str, Any] = train_step(trainer)
            record["characters_per_second"] = round(
                config.batch * config.window / max(time.perf_counter() - began, 1e-9), 1
            )
            log.append(record)
            if report is not None:
                report(record)
            if trainer.step % config.evaluate_every == 0 or trainer.step == last:
                count = min(config.evaluate_characters, valid_ids.size)
                exemplar = None if valid_exemplar is None else valid_exemplar[:count]
                found = evaluate(trainer.system, valid_ids[:count], config.window, exemplar)
                record = {"step": trainer.step, **{f"valid_{k}": v for k, v in asdict(found).items()}}
                log.append(record)
                if report is not None:
                    report(record)
                save_checkpoint(folder, trainer)
                saved = trainer.step
    except KeyboardInterrupt:
        if saved != trainer.step:
            save_checkpoint(folder, trainer)
        raise
