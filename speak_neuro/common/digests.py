"""SHA-256 of what a file says: arrays by name, type, shape and bytes, and the JSON values beside them.

    digest = sha256(canonical JSON of the header, then for each array in order of names: name, type, shape, bytes)

It stands in the file's header and is computed again on load, so a flipped bit, or a file put together from two, is
found. It protects from faults, not from who can write the file: that one writes the digest too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError

DIGEST = "sha256"
"""The field of a header that holds it."""
BLOCK = 1 << 22


def digest_of(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]] | None = None) -> str:
    """The digest of arrays and of a header, whose own field for it is left out."""
    content = {key: value for key, value in header.items() if key != DIGEST}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, value in sorted((arrays or {}).items()):
        array = np.asarray(value, order="C")
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def digest_of_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_digest(
    header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]] | None, where: Any, remedy: str
) -> None:
    """Refuse what is not what was written."""
    stated, found = header.get(DIGEST), digest_of(header, arrays)
    if stated != found:
        raise SpeakError(
            f"{where}: {DIGEST} is {str(stated)[:12]}... in the file and {found[:12]}... by its content: it was "
            f"damaged or changed since it was written; {remedy}"
        )
