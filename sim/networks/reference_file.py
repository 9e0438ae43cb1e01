"""A module's run as a file, for `speak-sim verify --reference`: NAME.input, NAME.spikes, NAME.membrane of every layer
of neurons."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from speak_neuro.common.archives import read_archive
from speak_neuro.common.files import atomic_write
from speak_neuro.errors import SpeakError
from speak_neuro.export.graphs.network_run import LayerRun

PARTS = ("input", "spikes", "membrane")


def save_reference(path: str | os.PathLike[str], reference: Mapping[str, LayerRun]) -> None:
    """Write what `speak_neuro.export.reference_of` found."""
    arrays = {f"{name}.{part}": getattr(run, part) for name, run in reference.items() for part in PARTS}
    with atomic_write(path) as stream:
        np.savez_compressed(stream, **arrays)


def read_reference(path: str | os.PathLike[str]) -> dict[str, LayerRun]:
    """The layers of a file of `save_reference`."""
    arrays = read_archive(path, "a reference file", "write one with speak_neuro.export.reference_of")
    names = {key.rpartition(".")[0] for key in arrays}
    for name in sorted(names):
        for part in PARTS:
            if f"{name}.{part}" not in arrays:
                raise SpeakError(f"{path} lacks {name}.{part}; allowed: input, spikes and membrane of every layer")
    return {name: LayerRun(*(arrays[f"{name}.{part}"] for part in PARTS)) for name in sorted(names)}
