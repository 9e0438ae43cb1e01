"""State as named tensors in safetensors files: written, read, put back into modules and optimisers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from speak_neuro.common.digests import DIGEST, check_digest, digest_of
from speak_neuro.common.files import atomic_write, utf8_path
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import check_regular
from speak_neuro.errors import SpeakError


def apply_tensors(
    module: nn.Module, tensors: dict[str, Tensor], path: Path | str, described: str = "config.json"
) -> None:
    """Put `tensors` of the file `path` into `module`, exactly its names and shapes, all finite.

    `described` is the file beside it that the module was built from.
    """
    expected = module.state_dict()
    for name in sorted(set(expected) ^ set(tensors)):
        state = "missing" if name in expected else "unknown"
        raise SpeakError(f"{path}: tensor {name} is {state}; the file does not belong to this run's {described}")
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise SpeakError(
                f"{path}: tensor {name} has shape {tuple(value.shape)}, {described} says {tuple(expected[name].shape)}"
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value)).sum())
            raise SpeakError(f"{path}: tensor {name} holds {bad} values that are not finite; use an earlier checkpoint")
    module.load_state_dict(tensors)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    """Write tensors and JSON metadata as one safetensors file, atomically; returns their digest, which stands in it."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    digest = digest_of(metadata, _as_bytes(plain))
    data = save(plain, metadata={"json": json.dumps({**metadata, DIGEST: digest})})
    with atomic_write(path) as stream:
        stream.write(data)
    return digest


def read_tensors(path: Path, checked: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote. A digest is checked where there is one; `checked`: there has to be one."""
    advice = "restore it or train again"
    try:
        check_regular(path, advice)
        with utf8_path(path) as name, safe_open(name, framework="pt") as stream:
            described = (stream.metadata() or {}).get("json", "{}")
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise SpeakError(f"{path}: no such file; the run has saved no checkpoint yet") from None
    except (SafetensorError, ValueError) as error:
        raise SpeakError(f"{path}: not a whole safetensors file ({error}); {advice}") from None
    metadata = parse_json(described, f"{path}: header", advice)
    if not isinstance(metadata, dict):
        raise SpeakError(f"{path}: header: found {type(metadata).__name__}; allowed: an object; {advice}")
    if checked or DIGEST in metadata:
        check_digest(metadata, _as_bytes(tensors), path, advice)
    return tensors, metadata


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file's tensors, without reading them; none of a file that cannot be read."""
    try:
        check_regular(path, "restore it or train again")
        with safe_open(path, framework="pt") as stream:
            return {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        return {}


def tensors_digest(tensors: dict[str, Tensor]) -> str:
    """The digest of tensors alone, whatever device they are on."""
    return digest_of({}, _as_bytes({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def _as_bytes(tensors: dict[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    """Each tensor's bytes under a name that holds its type and shape too; numpy has no bfloat16."""
    return {
        f"{name} {value.dtype} {tuple(value.shape)}": value.reshape(-1).view(torch.uint8).numpy()
        for name, value in tensors.items()
    }


def optimiser_tensors(optimiser: torch.optim.Optimizer, called: str = "optimiser") -> dict[str, Tensor]:
    """The optimiser's state as named tensors."""
    state = optimiser.state_dict()["state"]
    return {f"{called}.{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], called: str = "optimiser") -> None:
    """The inverse of `optimiser_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"{called}."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
