"""The training loop: steps, evaluations, checkpoints and the log, in a run folder that survives interruption."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.tensors import read_tensors, write_tensors
from speak_neuro.systems.run_folder import STATE, save_model
from speak_neuro.training.baseline_step import baseline_step
from speak_neuro.training.draws import seed_dropout
from speak_neuro.training.evaluation import evaluate
from speak_neuro.training.metrics_log import MetricsLog
from speak_neuro.training.rate import at_target
from speak_neuro.training.speak_step import speak_step
from speak_neuro.training.trainer import Trainer

CALIBRATION_CHARACTERS = 200_000
Report = Callable[[dict[str, Any]], None]


def save_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Write model.safetensors, then state.safetensors, each in one rename.

    In this order: when the second cannot be written, a resume repeats the steps since the state before and ends with
    the same weights; a state ahead of the model would leave the model behind for good.
    """
    tensors, metadata = trainer.snapshot()
    save_model(folder, trainer.system)
    write_tensors(folder / STATE, tensors, metadata)


def resume(folder: Path, trainer: Trainer) -> None:
    """Bring a fresh trainer to the folder's last checkpoint."""
    tensors, metadata = read_tensors(folder / STATE)
    trainer.restore(tensors, metadata, folder / STATE)


@contextlib.contextmanager
def interrupt_held() -> Iterator[Callable[[], bool]]:
    """Hold the first Ctrl-C back, and give a function that says whether it came; the second one interrupts at once.

    A step changes weights, proxy and random state one after the other: stopped in between they do not belong together.
    """
    came = False

    def on_interrupt(number: int, frame: Any) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt("at once; the last checkpoint stands")
        came = True

    # Signals belong to the main thread; and who ignores Ctrl-C, as a shell's background jobs do, goes on ignoring it.
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)


def fit(
    folder: Path,
    trainer: Trainer,
    valid_ids: npt.NDArray[np.int32],
    valid_exemplar: npt.NDArray[np.bool_] | None = None,
    report: Report | None = None,
    stop_after: int | None = None,
) -> None:
    """Train to the configured step (or `stop_after`), evaluating and saving on the way.

    Every record written to metrics.jsonl is also given to `report`. Ctrl-C ends the step, saves a checkpoint and
    raises KeyboardInterrupt. Of several processes the first alone writes; a Ctrl-C that any of them got stops all.
    """
    config, ranks = trainer.config, trainer.ranks
    log = MetricsLog(folder, trainer.step) if ranks.first else None
    last = config.steps if stop_after is None else min(config.steps, stop_after)

    def record(values: dict[str, Any]) -> None:
        if log is not None:
            log.append(values)
        if report is not None:
            report(values)

    with interrupt_held() as interrupted:
        while trainer.step < last:
            began = time.perf_counter()
            values: dict[str, Any] = train_step(trainer)
            seconds = max(time.perf_counter() - began, 1e-9)
            trainer.seconds += seconds
            speed = {"characters_per_second": round(config.batch * config.window / seconds, 1)}
            record({**values, **speed, "seconds": round(trainer.seconds, 3)})
            due = trainer.step % config.evaluate_every == 0 or trainer.step == last
            if due:
                count = min(config.evaluate_characters, valid_ids.size)
                exemplar = None if valid_exemplar is None else valid_exemplar[:count]
                done = trainer.step == config.steps
                # The finished run's rate is set on more text, since it stays.
                shown = valid_ids[: max(count, CALIBRATION_CHARACTERS) if done else count]
                part, low = valid_ids[:count], config.precision
                with at_target(trainer.system, shown, config.window, keep=done):
                    found = evaluate(trainer.system, part, config.window, exemplar, ranks=ranks, precision=low)
                measured = {f"valid_{name}": value for name, value in asdict(found).items()}
                record({"step": trainer.step, **measured, "seconds": round(trainer.seconds, 3)})
            stop = ranks.any(interrupted())
            if due or stop:
                ranks.check_equal(list(trainer.system.state_dict().values()), f"step {trainer.step}: weights")
                if ranks.first:
                    save_checkpoint(folder, trainer)
                elif trainer.proxy is not None:
                    trainer.proxy.release()
            if stop:
                raise KeyboardInterrupt(f"step {trainer.step} of {config.steps} is saved, --resume goes on from there")


def train_step(trainer: Trainer) -> dict[str, float]:
    """One optimiser step of any system; returns what it measured, in nats per character where a loss."""
    seed_dropout(trainer.config.seed, trainer.step, trainer.ranks.rank)
    return speak_step(trainer) if trainer.system.is_speak else baseline_step(trainer)
