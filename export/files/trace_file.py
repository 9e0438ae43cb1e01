"""`trace.npz`: what the trained boundary neuron saw and did on a text, as plain arrays. Needs no torch.

B sequences, L positions, D features; positions at and after a row's `length` are zero. One position is one character.
The same trace gives the same bytes, and reading allows no pickle.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.common.archives import read_archive
from speak_neuro.common.digests import DIGEST, check_digest, digest_of
from speak_neuro.common.files import atomic_write
from speak_neuro.common.json_text import parse_json
from speak_neuro.errors import SpeakError
from speak_neuro.neuron.reference import CONSTANTS

SCHEMA_VERSION = 3
WITH_DIGEST = 2
"""The first schema whose `meta` holds the content's digest; a file of the first schema is read without."""
WITH_ENTROPY = 3
"""The first schema that can hold `entropy`; a trace without it is written in the schema before."""
SCALARS = CONSTANTS
ARRAYS: dict[str, tuple[type, int]] = {
    "current": (np.float32, 2),
    "gate_logit": (np.float32, 2),
    "membrane": (np.float32, 2),
    "spikes": (np.uint8, 2),
    "length": (np.int64, 1),
    "features": (np.float32, 3),
    **dict.fromkeys(SCALARS, (np.float32, 0)),
    "text_utf8": (np.uint8, 1),
    "text_offsets": (np.int64, 1),
}
WEIGHTS = "weights"
"""Where `meta`, and a graph's metadata, have the digest of the weights that ran."""
OPTIONAL: dict[str, tuple[type, int]] = {"entropy": (np.float32, 2)}
_ADVICE = "make one with speak-export"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip entry can say; a clock would change the bytes


@dataclass(frozen=True)
class Trace:
    """One run of the trained network on the training device."""

    current: npt.NDArray[np.float32]
    """I (B, L), the network's own output."""
    gate_logit: npt.NDArray[np.float32]
    """e (B, L), after the reset mode's rewrite to constants."""
    membrane: npt.NDArray[np.float32]
    """u (B, L), the potential before reset."""
    spikes: npt.NDArray[np.uint8]
    """s (B, L), 0 or 1."""
    length: npt.NDArray[np.int64]
    """(B,) real positions per row."""
    features: npt.NDArray[np.float32]
    """(B, L, D), the readout's inputs."""
    decay: npt.NDArray[np.float32]
    gain: npt.NDArray[np.float32]
    threshold: npt.NDArray[np.float32]
    reset_potential: npt.NDArray[np.float32]
    reset_scale: npt.NDArray[np.float32]
    """The neuron's constants as the NIR file holds them, scalars as are the four before it."""
    text_utf8: npt.NDArray[np.uint8]
    """All rows' texts, UTF-8 (lone surrogates as three bytes)."""
    text_offsets: npt.NDArray[np.int64]
    """(B + 1,) byte positions: row b is text_utf8[text_offsets[b] : text_offsets[b + 1]]."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Device, dtype, versions, run, schema_version."""
    entropy: npt.NDArray[np.float32] | None = None
    """(B, L) bits of the language model's next character, for pictures; None where there is no language model."""

    def __post_init__(self) -> None:
        for name, (dtype, dimensions) in self._kinds().items():
            value = np.asarray(getattr(self, name))
            if value.dtype != dtype or value.ndim != dimensions:
                raise ValueError(
                    f"{name} is {value.dtype} with {value.ndim} dimensions; "
                    f"allowed: {np.dtype(dtype)} with {dimensions} dimensions"
                )
            object.__setattr__(self, name, value)
            if value.dtype == np.float32 and not np.isfinite(value).all():
                raise ValueError(f"{name} holds NaN or infinity; allowed: finite numbers")
        rows, positions = self.current.shape
        shapes = {
            **dict.fromkeys(("gate_logit", "membrane", "spikes", *self._optional()), (rows, positions)),
            "length": (rows,),
            "features": (rows, positions, self.features.shape[2]),
            "text_offsets": (rows + 1,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; allowed: {shape}")
        if ((self.length < 0) | (self.length > positions)).any():
            raise ValueError(f"length runs from {self.length.min()} to {self.length.max()}; allowed: 0 to {positions}")
        if (self.spikes > 1).any():
            raise ValueError(f"spikes holds {self.spikes.max()}; allowed: 0 and 1")
        padding = ~self.valid
        for name in ("current", "gate_logit", "membrane", "spikes", *self._optional()):
            if getattr(self, name)[padding].any():
                raise ValueError(f"{name} is not zero at and after a row's length; allowed: zero padding")
        offsets = self.text_offsets
        if offsets[0] != 0 or offsets[-1] != self.text_utf8.size or (np.diff(offsets) < 0).any():
            raise ValueError(f"text_offsets do not divide the {self.text_utf8.size} bytes of text_utf8 into rows")
        # A UTF-8 character starts at every byte that is not a continuation byte (10xxxxxx).
        starts = np.concatenate(([0], np.cumsum((self.text_utf8 & 0xC0) != 0x80, dtype=np.int64)))
        characters = np.diff(starts[offsets])
        if (characters != self.length).any():
            row = int(np.flatnonzero(characters != self.length)[0])
            raise ValueError(
                f"row {row} has {characters[row]} characters of text; allowed: its length {self.length[row]}"
            )

    def _optional(self) -> list[str]:
        return [name for name in OPTIONAL if getattr(self, name) is not None]

    def _kinds(self) -> dict[str, tuple[type, int]]:
        return ARRAYS | {name: OPTIONAL[name] for name in self._optional()}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that it holds but `meta`, by name."""
        return {name: np.asarray(getattr(self, name)) for name in self._kinds()}

    @property
    def sequences(self) -> int:
        """B."""
        return int(self.current.shape[0])

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """(B, L), True at real positions."""
        return np.arange(self.current.shape[1]) < self.length[:, None]

    def text(self, row: int) -> str:
        """The row's text, one character per real position."""
        start, end = self.text_offsets[row : row + 2]
        return self.text_utf8[start:end].tobytes().decode("utf-8", "surrogatepass")


def encode_texts(texts: list[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """`text_utf8` and `text_offsets` of the rows' texts."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets


def write_trace(path: str | os.PathLike[str], trace: Trace) -> None:
    """Write `trace` as an .npz that `numpy.load` reads, with reproducible bytes, atomically."""
    arrays = trace.arrays()
    meta = {**trace.meta, "schema_version": WITH_DIGEST if trace.entropy is None else WITH_ENTROPY}
    meta[DIGEST] = digest_of(meta, arrays)
    arrays["meta"] = np.array(json.dumps(meta, sort_keys=True))
    with atomic_write(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as member:
                np.save(member, np.asanyarray(value, order="C"), allow_pickle=False)


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Read and check a trace; every departure is one SpeakError line naming the file and the field."""
    arrays = read_archive(path, "a trace", _ADVICE, (*ARRAYS, "meta"), tuple(OPTIONAL))
    described = str(arrays.pop("meta"))
    meta = parse_json(described, f"{path}: meta", _ADVICE)
    if not isinstance(meta, dict):
        raise SpeakError(f"{path}: meta is a {type(meta).__name__}; allowed: a JSON object")
    version = meta.get("schema_version", 1)
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise SpeakError(
            f"{path}: schema_version is {version!r}, this speak-neuro reads 1 to {SCHEMA_VERSION}: update speak-neuro"
        )
    try:
        trace = Trace(**arrays, meta={key: value for key, value in meta.items() if key != DIGEST})
    except ValueError as error:
        raise SpeakError(f"{path}: {error}") from error
    if version >= WITH_DIGEST:
        check_digest(meta, arrays, path, _ADVICE)
    return trace
