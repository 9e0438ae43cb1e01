"""Which backend computes a scan: the loop of torch operations, or a fused engine.

A fused engine is an entry of `ENGINES`: a module of its own with `run_forward` and `run_backward`
(`neuron.fused.dispatch` says what they take and give), the package it needs and the device it is for. Engines compute
in float32, and the reset modes that `compiled_reset` knows; the loop computes everything.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

from speak_neuro.neuron.fused.dispatch import ENGINES, Engine, available
from speak_neuro.neuron.resets import why_not_compiled

logger = logging.getLogger(__name__)


def backends() -> tuple[str, ...]:
    """Names that `backend` may have."""
    return ("auto", "loop", *ENGINES)


def choose_backend(device: torch.device, dtype: torch.dtype, backend: str = "auto", mode: str = "gated") -> str:
    """The backend that serves `device`, `dtype` and reset mode: the one asked for, or for "auto" the fastest."""
    engine = ENGINES.get(backend)
    if engine is None and backend not in ("auto", "loop"):
        raise ValueError(f"backend is {backend!r}; allowed: {', '.join(backends())}")
    if dtype != torch.float32 and dtype != torch.float64:
        raise ValueError(f"current has type {dtype}; allowed: torch.float32, torch.float64 and half precision")
    if engine is not None:
        _check_engine(backend, engine, device, dtype, mode)
    if backend != "auto":
        return backend
    chosen = "loop"
    if dtype == torch.float32 and why_not_compiled(mode) is None:
        chosen = next((name for name, engine in ENGINES.items() if _is_for(engine, device)), "loop")
    _log_choice(chosen, device.type, str(dtype))
    return chosen


def _is_for(engine: Engine, device: torch.device) -> bool:
    """Whether `auto` takes the engine on this device."""
    return device.type == engine.device and engine.installed() and available(engine.package)


def _check_engine(name: str, engine: Engine, device: torch.device, dtype: torch.dtype, mode: str) -> None:
    if reason := why_not_compiled(mode):
        raise ValueError(f"backend {name!r}: {reason}")
    if dtype != torch.float32 or not (device.type == engine.device or engine.elsewhere()):
        raise ValueError(
            f"backend {name!r} serves float32 on {engine.place}, not {dtype} on {device}; use 'loop' or 'auto'"
        )
    if not available(engine.package):
        raise ValueError(
            f"backend {name!r} needs the package {engine.package}: pip install {engine.package}, or use 'loop'"
        )


def backend_of(watching: str | None, current: Tensor, mode: str, backend: str) -> str:
    """The backend of a scan. Where torch is `watching` the operations it is the loop, or a refusal."""
    if watching is None:
        return choose_backend(current.device, current.dtype, backend, mode)
    if watching == "torch.jit.trace":
        raise ValueError(
            "torch.jit.trace would keep the length of its example for every later input of the scan; "
            "use torch.export, or trace GatedLeaky.step"
        )
    if backend not in ("auto", "loop"):
        raise ValueError(f"backend {backend!r} computes where {watching} cannot follow; use 'loop' or 'auto'")
    return choose_backend(current.device, current.dtype, "loop", mode)


@functools.cache
def _log_choice(chosen: str, device: str, dtype: str) -> None:
    logger.info("gated LIF scan on %s, %s: backend %s", device, dtype, chosen)
