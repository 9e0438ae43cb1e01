"""The device that a command runs on, from the name its user gives."""

from __future__ import annotations

import functools

import torch

from speak_neuro.common.provenance import device_name
from speak_neuro.errors import SpeakError

ALLOWED = "auto, cpu, cuda, cuda:N"


def choose_device(name: str) -> torch.device:
    """The torch device called `name`; "auto" takes CUDA when it is there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpeakError(f"--device is {name!r}; allowed: {ALLOWED}") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index is not None):
        raise SpeakError(f"--device is {name!r}; allowed: {ALLOWED}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise SpeakError(f"--device is {name!r}, but torch finds no CUDA device; use --device cpu")
        count = torch.cuda.device_count()
        if device.index is not None and device.index >= count:
            raise SpeakError(
                f"--device is {name!r}, but torch finds {count} CUDA device(s); allowed: cuda:0 to cuda:{count - 1}"
            )
    return device


@functools.lru_cache(maxsize=8)
def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices by instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def choose_precision(name: str, device: torch.device) -> str:
    """The arithmetic called `name`; "auto" takes bfloat16 where the device has it."""
    if name != "auto":
        return name
    return "bfloat16" if has_bfloat16(device) else "float32"


def describe_device(device: torch.device) -> str:
    """The device's own name: the graphics card's, or the processor's with the cores in use."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else device_name()


def wait(device: torch.device) -> None:
    """Until all that was asked of the device is done; the processor's is, always."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
