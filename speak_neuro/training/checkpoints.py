"""The checkpoints of a run folder: the newest as state.safetensors, those before it as state-STEP.safetensors.

A checkpoint is written beside the newest and renamed over it; the newest is linked to its own name first. So at every
moment there is a whole one, and a damaged one is not the last.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from speak_neuro.common.tensors import read_tensors, write_tensors
from speak_neuro.errors import SpeakError
from speak_neuro.systems.run_folder import CONFIG, MODEL, STATE, WITH_DIGEST, check_same_run, read_run

KEPT = 2
"""Checkpoints kept, the newest included."""
Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors and metadata."""
_EARLIER = re.compile(r"state-(\d+)\.safetensors")


def earlier(folder: Path) -> dict[int, Path]:
    """The checkpoints before the newest, by step, the latest first."""
    found = {}
    for path in folder.glob("state-*.safetensors"):
        if match := _EARLIER.fullmatch(path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items(), reverse=True))


def save_state(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, Any], before: int | None) -> None:
    """Write the newest checkpoint; the one in its place, of step `before` if known, is kept under its own name.

    The metadata holds the step and the identity of the run.
    """
    newest = folder / STATE
    if before is not None and newest.exists():
        kept = folder / f"state-{before}.safetensors"
        with contextlib.suppress(FileExistsError):
            os.link(newest, kept)
    write_tensors(newest, tensors, metadata)
    for path in list(earlier(folder).values())[KEPT - 1 :]:
        path.unlink()


def load_state(
    folder: Path, any_good: bool, read: Callable[[Path, Path], Checkpoint] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any], Path, list[str]]:
    """Tensors and metadata of a checkpoint, its file, and what is wrong with newer ones.

    The newest; where that is damaged, the error says which the others are, or with `any_good` the next is taken. `read`
    reads a file of the folder and refuses another run's.
    """
    others = earlier(folder)
    faults: list[str] = []
    for path in (folder / STATE, *others.values()):
        try:
            tensors, metadata = (read or read_state)(folder, path)
            _check_progress(path, metadata)
        except SpeakError as error:
            faults.append(str(error))
            if any_good:
                continue
            steps = ", ".join(map(str, others))
            hint = f"; --resume auto goes on from step {steps}" if others else ""
            raise SpeakError(f"{error}{hint}") from None
        return tensors, metadata, path, faults
    raise SpeakError(f"{'; '.join(faults)}; no checkpoint is whole: begin anew with --overwrite")


def read_state(folder: Path, path: Path) -> Checkpoint:
    """A checkpoint of a GTok run."""
    run = read_run(folder) if (folder / CONFIG).exists() else None
    tensors, metadata = read_tensors(path, checked=run is not None and run.schema >= WITH_DIGEST)
    if run is not None:
        check_same_run(run, metadata, path)
    return tensors, metadata


def _check_progress(path: Path, metadata: dict[str, Any]) -> None:
    step, seconds = metadata.get("step"), metadata.get("seconds", 0.0)
    if type(step) is not int or step < 0 or type(seconds) not in (int, float):
        raise SpeakError(
            f"{path}: step is {step!r} and seconds {seconds!r}; allowed: numbers from 0; restore it or train again"
        )


def has_begun(folder: Path) -> bool:
    """Whether a checkpoint can be expected; a run that was killed before its first one has none and begins anew."""
    return (folder / STATE).exists() or bool(earlier(folder)) or (folder / MODEL).exists()
