"""Arrays and a JSON header in one safetensors file: what tables and vocabularies are stored as. Needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.files import atomic_write
from speak_neuro.errors import SpeakError


def write_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, npt.NDArray[Any]], kind: str, schema: int, header: dict[str, Any]
) -> None:
    """Write arrays and a JSON header as one safetensors file. One metadata key: several come in any order."""
    from safetensors.numpy import save

    described = json.dumps({"format": kind, "schema": schema, **header}, sort_keys=True)
    data = save({name: np.ascontiguousarray(value) for name, value in arrays.items()}, metadata={"json": described})
    with atomic_write(path) as stream:
        stream.write(data)


def read_arrays(
    path: str | os.PathLike[str], dtypes: Mapping[str, str], kind: str, schema: int, advice: str
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read what `write_arrays` wrote: exactly the named one-dimensional arrays, and the header."""
    from safetensors import SafetensorError, safe_open

    what = kind.split()[-1]
    if not Path(path).is_file():
        raise SpeakError(f"{path}: {'is a folder' if Path(path).is_dir() else 'no such file'}; {advice}")
    try:
        with safe_open(os.fspath(path), framework="np") as stream:
            header = json.loads((stream.metadata() or {}).get("json", "null"))
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError) as error:
        raise SpeakError(f"{path}: not a whole safetensors file ({' '.join(str(error).split())}); {advice}") from None
    if not isinstance(header, dict) or header.get("format") != kind:
        raise SpeakError(f"{path}: a safetensors file, but not a {what}; {advice}")
    if header.get("schema") != schema:
        raise SpeakError(
            f"{path}: schema is {header.get('schema')!r}, this version reads {schema}; "
            "use the speak_neuro that wrote it"
        )
    for name in sorted(set(dtypes) ^ set(arrays)):
        raise SpeakError(f"{path}: {name} is {'missing' if name in dtypes else 'unknown'}; {advice}")
    for name, dtype in dtypes.items():
        found = arrays[name]
        if found.dtype != np.dtype(dtype) or found.ndim != 1:
            raise SpeakError(f"{path}: {name} is {found.dtype} {found.shape}; allowed: {dtype} (n,); {advice}")
    return arrays, header


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """What kind of file `write_arrays` made of `path`; None for any other file, or none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="np") as stream:
            header = json.loads((stream.metadata() or {}).get("json", "null"))
    except (SafetensorError, OSError, ValueError, TypeError):
        return None
    return header.get("format") if isinstance(header, dict) else None
