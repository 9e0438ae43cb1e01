"""The training loop: steps, evaluations, checkpoints and the log, in a run folder that survives interruption."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.ending import interrupts_held
from speak_neuro.errors import SpeakError
from speak_neuro.systems.run_folder import header_of, save_model
from speak_neuro.training.baseline_step import baseline_step
from speak_neuro.training.checkpoints import load_state, save_state
from speak_neuro.training.draws import seed_dropout
from speak_neuro.training.evaluation import evaluate
from speak_neuro.training.metrics_log import MetricsLog
from speak_neuro.training.rate import at_target
from speak_neuro.training.speak_step import speak_step
from speak_neuro.training.trainer import Trainer

CALIBRATION_CHARACTERS = 200_000
Report = Callable[[dict[str, Any]], None]
EXPLODED = 10
"""A loss of so many times that of guessing every character alike is no training any more."""


def save_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Write model.safetensors, then state.safetensors, each in one rename; the checkpoint before is kept.

    In this order: when the second cannot be written, a resume repeats the steps since the state before and ends with
    the same weights; a state ahead of the model would leave the model behind for good.
    """
    tensors, metadata = trainer.snapshot()
    save_model(folder, trainer.system)
    save_state(folder, tensors, {**metadata, **header_of(folder)}, trainer.saved_step)
    trainer.saved_step = trainer.step


def resume(folder: Path, trainer: Trainer, any_good: bool = False) -> list[str]:
    """Bring a fresh trainer to the folder's last checkpoint, or with `any_good` to the newest whole one.

    Returns what to tell: which files were passed over, and from which step the run goes on.
    """
    tensors, metadata, path, faults = load_state(folder, any_good)
    trainer.restore(tensors, metadata, path)
    trainer.saved_step = trainer.step if not faults else None
    return [*faults, f"{path}: going on from step {trainer.step}"] if any_good else []


@contextlib.contextmanager
def interrupt_held() -> Iterator[Callable[[], bool]]:
    """Hold the first Ctrl-C, SIGTERM or SIGHUP back, and give a function that says whether it came.

    The second one interrupts at once.

    A step changes weights, proxy and random state one after the other: stopped in between they do not belong together.
    """
    came = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt("at once; the last checkpoint stands")
        came = True

    with interrupts_held(on_signal):
        yield lambda: came


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
            check_finite(trainer, values)
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
                values = {name: value for name, value in asdict(found).items() if name != "block_bpc"}
                measured = {f"valid_{name}": value for name, value in values.items()}
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


def check_finite(trainer: Trainer, values: dict[str, Any]) -> None:
    """Stop a run that has exploded, with what is needed to see why; its checkpoints hold the finite state before."""
    limit = EXPLODED * math.log(max(trainer.system.language_model.config.vocabulary, 2))
    starts = trainer.sampler.starts_at(trainer.step - 1).tolist()
    remedy = "lower --learning-rate or --tokenizer-learning-rate"
    stop_exploded(values, "loss_lm", limit, "windows that begin at characters", starts, trainer.saved_step, remedy)


def stop_exploded(
    values: dict[str, Any], loss: str, limit: float, parts: str, which: list[Any], saved: int | None, remedy: str
) -> None:
    """Refuse to go on from a step with a value that is not finite, or a `loss` above the limit; `which` was read."""
    for name, value in values.items():
        if math.isfinite(value) and not (name == loss and value > limit):
            continue
        shown = ", ".join(map(str, which[:8])) + (", ..." if len(which) > 8 else "")
        kept = f"the checkpoint of step {saved} stands" if saved else "no checkpoint was due"
        raise SpeakError(f"step {values['step']}: {name} is {value:g}, in the {parts} {shown}; {kept}; {remedy}")


def train_step(trainer: Trainer) -> dict[str, float]:
    """One optimiser step of any system; returns what it measured, in nats per character where a loss."""
    seed_dropout(trainer.config.seed, trainer.step, trainer.ranks.rank)
    return speak_step(trainer) if trainer.system.is_speak else baseline_step(trainer)
