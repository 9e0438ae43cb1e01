"""State as named tensors in safetensors files: written, read, put back into modules and optimisers."""

from __future__ import annotations

import json
from collections.abc import Mapping
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

BELONGS = "the file does not belong to this run's config.json"


def check_tensors(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], where: Any, why: str = BELONGS, remedy: str = ""
) -> None:
    """Refuse tensors of the file `where` that have not exactly the names and shapes of `expected`, or are not finite.

    `why` says what names and shapes that differ mean, `remedy` what to do about numbers that are not finite.
    """
    for name in sorted(set(expected) ^ set(found)):
        raise SpeakError(f"{where}: tensor {name} is {'missing' if name in expected else 'unknown'}; {why}")
    for name, value in found.items():
        if value.shape != expected[name].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(expected[name].shape)}"
            raise SpeakError(f"{where}: tensor {name} has shape {shapes}; {why}")
        if value.is_floating_point() and not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value)).sum())
            raise SpeakError(f"{where}: tensor {name} holds {bad} values that are not finite; {remedy or why}")


def apply_tensors(module: nn.Module, tensors: dict[str, Tensor], path: Path | str) -> None:
    """Put `tensors` of the file `path` into `module`, exactly its names and shapes, all finite."""
    check_tensors(module.state_dict(), tensors, path, remedy="use an earlier checkpoint")
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
