"""Arrays and a JSON header in one safetensors file: what tables and vocabularies are stored as. Needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.digests import DIGEST, check_digest, digest_of
from speak_neuro.common.files import atomic_write, utf8_path
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import check_regular
from speak_neuro.errors import SpeakError

WITH_DIGEST = 2
"""The first schema whose header holds the content's digest; a file of the first schema is read without."""


def write_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, npt.NDArray[Any]], kind: str, schema: int, header: dict[str, Any]
) -> None:
    """Write arrays and a JSON header as one safetensors file. One metadata key: several come in any order."""
    from safetensors.numpy import save

    plain = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    stated = {"format": kind, "schema": schema, **header}
    described = json.dumps({**stated, DIGEST: digest_of(stated, plain)}, sort_keys=True)
    data = save(plain, metadata={"json": described})
    with atomic_write(path) as stream:
        stream.write(data)


def read_arrays(
    path: str | os.PathLike[str], dtypes: Mapping[str, str], kind: str, schema: int, advice: str
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read what `write_arrays` wrote: exactly the named one-dimensional arrays, and the header."""
    from safetensors import SafetensorError, safe_open

    what = kind.split()[-1]
    try:
        check_regular(path, advice)
    except FileNotFoundError:
        raise SpeakError(f"{path}: no such file; {advice}") from None
    try:
        with utf8_path(path) as name, safe_open(name, framework="np") as stream:
            described = (stream.metadata() or {}).get("json", "null")
            arrays = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError) as error:
        raise SpeakError(f"{path}: not a whole safetensors file ({' '.join(str(error).split())}); {advice}") from None
    header = parse_json(described, f"{path}: header", advice)
    if not isinstance(header, dict) or header.get("format") != kind:
        raise SpeakError(f"{path}: a safetensors file, but not a {what}; {advice}")
    found_schema = header.get("schema")
    if type(found_schema) is not int or not 1 <= found_schema <= schema:
        raise SpeakError(
            f"{path}: schema is {found_schema!r}, this version reads 1 to {schema}; use the speak_neuro that wrote it"
        )
    for name in sorted(set(dtypes) ^ set(arrays)):
        raise SpeakError(f"{path}: {name} is {'missing' if name in dtypes else 'unknown'}; {advice}")
    for name, dtype in dtypes.items():
        found = arrays[name]
        if found.dtype != np.dtype(dtype) or found.ndim != 1:
            raise SpeakError(f"{path}: {name} is {found.dtype} {found.shape}; allowed: {dtype} (n,); {advice}")
    if found_schema >= WITH_DIGEST:
        check_digest(header, arrays, path, advice)
    return arrays, header


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """What kind of file `write_arrays` made of `path`; None for any other file, or none."""
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(path, "")
        with safe_open(os.fspath(path), framework="np") as stream:
            header = json.loads((stream.metadata() or {}).get("json", "null"))
    except (SpeakError, SafetensorError, OSError, ValueError, TypeError):
        return None
    return header.get("format") if isinstance(header, dict) else None
