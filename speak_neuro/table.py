"""A tokenizer as a table: for each character its current and its gate, then the neuron. Needs no torch.

    I_t = current[c_t]      m_t = hard[c_t]      s, u, v = neuron(I, m)          (paper Eq. 1, 8, 9)

Exact for the `linear` encoder, whose features are a function of the character alone: the table holds the very float32
values that `speak_neuro.inference` computes, so boundaries are the same bit for bit. Made by `speak-export --to table`.

    tokenizer = load("table.safetensors")       # a TableTokenizer: tokens, spans, stream, as speak_neuro.text.Speak
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speak_neuro.alphabet import Alphabet
from speak_neuro.command import atomic_write
from speak_neuro.errors import SpeakError
from speak_neuro.reference import FloatArray, NeuronParameters

if TYPE_CHECKING:
    from speak_neuro.table_text import TableTokenizer
    from speak_neuro.vocabulary import Vocabulary

SCHEMA_VERSION = 1
FORMAT = "speak_neuro table"
LARGEST = 1e20
"""Bound on currents and constants: far from it, no text is long enough for the potential to overflow."""
CONSTANTS = ("decay", "gain", "threshold", "reset_potential", "reset_scale")
_ADVICE = "make one with speak-export --to table"


@dataclass(frozen=True)
class CompiledTable:
    """A tokenizer whose currents depend on the character alone. V characters, the unknown one (id 0) included."""

    alphabet: Alphabet
    current: FloatArray
    """I (V,), by the alphabet's id."""
    hard: npt.NDArray[np.bool_]
    """(V,) whether a spike at the character resets hard."""
    neuron: NeuronParameters = field(default_factory=NeuronParameters)
    """Scalars. Its reset mode is already in `hard`."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Where the table comes from; nothing that execution needs."""

    def __post_init__(self) -> None:
        for name, dtype in (("current", np.float32), ("hard", np.bool_)):
            value = np.asarray(getattr(self, name))
            if value.dtype != dtype or value.shape != (len(self.alphabet),):
                raise ValueError(
                    f"{name} is {value.dtype} {value.shape}; allowed: {np.dtype(dtype)} ({len(self.alphabet)},), "
                    "one for each character of the alphabet and one for unknown characters"
                )
        for name in CONSTANTS:
            if np.size(getattr(self.neuron, name)) != 1:
                raise ValueError(f"{name} has {np.size(getattr(self.neuron, name))} values; allowed: one neuron")
        self._bounded("current", self.current)
        self._bounded("gain * current", self.drive)
        self._bounded("soft reset", self.neuron.soft_reset)
        for name in CONSTANTS:
            self._bounded(name, np.asarray(getattr(self.neuron, name)))

    @staticmethod
    def _bounded(name: str, value: npt.NDArray[Any]) -> None:
        if not np.isfinite(value).all():
            raise ValueError(f"{name} holds NaN or infinity; allowed: finite numbers")
        if (np.abs(value) > LARGEST).any():
            raise ValueError(f"{name} reaches {np.abs(value).max():g}; allowed: up to {LARGEST:g}")

    @property
    def drive(self) -> FloatArray:
        """gain * I (V,), rounded to float32 before it is added to the potential."""
        with np.errstate(over="ignore"):
            return np.asarray(np.multiply(self.neuron.gain, self.current, dtype=np.float32)).reshape(-1)

    def constants(self) -> tuple[np.float32, np.float32, np.float32, np.float32]:
        """decay, threshold, reset_potential, soft_reset."""
        p = self.neuron
        decay, threshold, reset, soft = (
            np.float32(np.asarray(value).reshape(-1)[0])
            for value in (p.decay, p.threshold, p.reset_potential, p.soft_reset)
        )
        return decay, threshold, reset, soft

    def spikes(
        self, ids: npt.NDArray[np.int32], state: np.float32 | None = None
    ) -> tuple[npt.NDArray[np.bool_], np.float32]:
        """Spikes (L,) of characters with these ids and the potential after them, step by step in plain numpy.

        The arithmetic of `reference.gated_lif_step` on scalars; what compiled code is compared with, and used for short
        texts, for which loading compiled code would take longer.
        """
        decay, threshold, reset, soft = self.constants()
        v = reset if state is None else state
        fired = np.zeros(ids.size, dtype=np.bool_)
        drive, hard = list(self.drive[ids]), self.hard[ids].tolist()  # list() keeps float32 scalars
        for t, (driven, opened) in enumerate(zip(drive, hard, strict=True)):
            v = decay * v + driven
            if v >= threshold:
                fired[t] = True
                v = reset if opened else v - soft
        return fired, v

    def rows(self) -> FloatArray:
        """(P + 2, 2) drive and gate by code point, for `compiled.scan`: all others in row P, a break in P + 1."""
        points = np.array([ord(character) for character in self.alphabet.characters], dtype=np.int64)
        rows = np.empty((max(256, int(points.max(initial=0)) + 1) + 2, 2), dtype=np.float32)
        drive, gate = self.drive, self.hard.astype(np.float32)
        rows[:] = drive[0], gate[0]
        rows[points, 0], rows[points, 1] = drive[1:], gate[1:]
        rows[-1] = np.inf, 1.0
        return rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, atomically; the same table gives the same bytes."""
        tensors = {
            "code_points": np.array([ord(character) for character in self.alphabet.characters], dtype=np.uint32),
            "current": np.asarray(self.current),
            "hard": np.asarray(self.hard),
            **{name: np.asarray(getattr(self.neuron, name), dtype=np.float32).reshape(1) for name in CONSTANTS},
        }
        write_arrays(path, tensors, FORMAT, SCHEMA_VERSION, {"mode": self.neuron.mode, "metadata": dict(self.metadata)})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CompiledTable:
        """Read and check a table; every departure is one SpeakError line naming the file and the field."""
        shapes = {"code_points": "uint32", "current": "float32", "hard": "bool"} | dict.fromkeys(CONSTANTS, "float32")
        tensors, header = read_arrays(path, shapes, FORMAT, SCHEMA_VERSION, _ADVICE)
        try:
            points = tensors["code_points"].tolist()
            if any(point > 0x10FFFF for point in points):
                raise ValueError(f"code_points reach {max(points):#x}; allowed: up to 0x10ffff")
            mode: Any = header.get("mode")
            metadata = header.get("metadata", {})
            constants = {name: tensors[name] for name in CONSTANTS}
            for name, value in constants.items():
                if value.shape != (1,):
                    raise ValueError(f"{name} has shape {value.shape}; allowed: (1,)")
            neuron = NeuronParameters(**{name: float(value[0]) for name, value in constants.items()}, mode=mode)
            if not isinstance(metadata, dict):
                raise ValueError(f"metadata is {metadata!r}; allowed: an object")
            alphabet = Alphabet("".join(map(chr, points)))
            return cls(alphabet, tensors["current"], tensors["hard"], neuron, metadata)
        except ValueError as error:
            raise SpeakError(f"{path}: {error}; {_ADVICE}") from None


def load(
    path: str | os.PathLike[str],
    vocabulary: Vocabulary | str | os.PathLike[str] | None = None,
    backend: str = "auto",
) -> TableTokenizer:
    """The tokenizer of a table file, with token ids when a vocabulary (or its file) is given."""
    from speak_neuro.table_text import TableTokenizer
    from speak_neuro.vocabulary import Vocabulary

    if vocabulary is not None and not isinstance(vocabulary, Vocabulary):
        vocabulary = Vocabulary.load(vocabulary)
    return TableTokenizer(CompiledTable.read(path), vocabulary, backend)


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
