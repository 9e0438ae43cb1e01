"""Exported neurons and traces made with the numpy reference, for tests of the simulation side."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.export.files.trace_file import Trace, encode_texts
from speak_neuro.neuron.reference import gated_lif_run
from speak_neuro.neuron.resets import compiled_reset

TEXTS = [
    "The cat sat on the mat, and the mat did not mind.",
    "Ένα δύο τρία.",
    "",
    "السلام عليكم ورحمة الله",
    "</script><script>alert(1)</script> & <b>",
    "日本語のテキスト",
    "\ud800 lone",
    "a",
]


def make_trace(
    texts: list[str] | None = None,
    *,
    mode: str = "gated",
    width: int = 6,
    seed: int = 0,
    grid: bool = True,
    **constants: float,
) -> tuple[ExportedNeuron, Trace]:
    """A neuron with random readouts and its run on random features of `texts`, as an exporter writes them.

    On the `grid` every sum is exact in float32, so that Lava's Dense computes the same currents; off it, rounding
    differs. The mode is rewritten to constant gates and a reset scale.
    """
    texts = TEXTS if texts is None else texts
    rng = np.random.default_rng(seed)
    rows, positions = len(texts), max(map(len, texts), default=0)
    length = np.array([len(text) for text in texts], dtype=np.int64)
    valid = np.arange(positions) < length[:, None]
    if grid:
        features = rng.integers(-4, 5, (rows, positions, width)) / 4
        weight, bias = rng.integers(-8, 12, (2, width)) / 16, np.array([0.25, -0.125])
    else:
        features = rng.normal(size=(rows, positions, width))
        weight, bias = rng.normal(size=(2, width)) / width**0.5, np.array([0.3, -0.1])
    features = np.where(valid[..., None], features, 0).astype(np.float32)
    weight, bias = weight.astype(np.float32), bias.astype(np.float32)
    named = {"decay": 1.0, "gain": 1.0, "threshold": 1.0, "reset_potential": 0.0, "reset_scale": 0.8, **constants}
    if compiled_reset(mode).gate_rule is not None:
        weight[1], bias[1] = 0, 1 if compiled_reset(mode).gate_rule else -1
    if not compiled_reset(mode).soft:
        named["reset_scale"] = 0.0
    scalars = {name: np.float32(value) for name, value in named.items()}
    exported = ExportedNeuron(
        weight=weight,
        bias=bias,
        gate_threshold=np.zeros(1, dtype=np.float32),
        **{name: np.array([value]) for name, value in scalars.items()},
    )
    both = np.where(valid[..., None], features @ weight.T + bias, np.float32(0))
    current, gate_logit = np.ascontiguousarray(both[..., 0]), np.ascontiguousarray(both[..., 1])
    text_utf8, text_offsets = encode_texts(texts)
    return exported, run_again(
        exported,
        {
            "current": current,
            "gate_logit": gate_logit,
            "length": length,
            "features": features,
            **{name: np.asarray(value) for name, value in scalars.items()},
            "text_utf8": text_utf8,
            "text_offsets": text_offsets,
            "meta": {"device": "test"},
        },
    )


def run_again(exported: ExportedNeuron, fields: dict[str, Any]) -> Trace:
    """A trace of these fields, with the membrane and the spikes that the reference gives for its currents."""
    current, gate_logit, length = fields["current"], fields["gate_logit"], fields["length"]
    valid = np.arange(current.shape[1]) < length[:, None]
    run = gated_lif_run(current[..., None], gate_logit[..., None], exported.parameters(), valid=valid)
    return Trace(
        **fields,
        membrane=np.where(valid, run.membrane[..., 0], np.float32(0)),
        spikes=run.spikes[..., 0].astype(np.uint8),
    )


def fields(trace: Trace) -> dict[str, Any]:
    """The fields of a trace as a dict, arrays copied, to change some and build another."""
    return {name: np.copy(v) if isinstance(v, np.ndarray) else v for name, v in vars(trace).items()}


def processes_with(marker: str) -> list[int]:
    """Live processes whose environment holds `marker`, zombies aside."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX" and marker.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except (OSError, IndexError):
            continue
    return [pid for pid in found if pid != os.getpid()]


def orphaned_memory(before: set[str]) -> set[str]:
    """Shared-memory files newer than `before` that no live process maps: others may be running simulations too."""
    fresh = {path.name for path in Path("/dev/shm").iterdir()} - before
    for maps in Path("/proc").glob("[0-9]*/maps"):
        if not fresh:
            break
        try:
            text = maps.read_text()
        except OSError:
            continue
        fresh = {name for name in fresh if f"/dev/shm/{name}" not in text}
    return fresh


def settles(condition: Any, seconds: float = 5.0) -> bool:
    """Whether `condition` becomes true within `seconds`."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())
