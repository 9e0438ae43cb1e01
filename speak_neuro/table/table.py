"""A tokenizer as tables: for each character its current and its gate, then the neuron. Needs no torch.

    I_t = T_0[c_t] + T_1[c_{t-1}] + ... + T_{k-1}[c_{t-k+1}]      added from left to right in float32; the gate likewise
    s, u, v = neuron(I, e)                                        (paper Eq. 1, 9-11)

Exact for the `linear` encoder, whose features are a function of the character alone (k = 1), and for `convolution`: the
tables hold the very float32 values that `inference.engine` computes with, so boundaries are the same bit for bit.
What lies before the text adds 0. Made by `speak-export --to table`.

    tokenizer = load("table.safetensors")       # a TableTokenizer: tokens, spans, stream, as inference.speak.Speak
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import Float32Array
from speak_neuro.common.arrays import read_arrays, write_arrays
from speak_neuro.errors import SpeakError
from speak_neuro.neuron.reference import CONSTANTS, NeuronParameters
from speak_neuro.neuron.resets import compiled_reset
from speak_neuro.text.alphabet import Alphabet

if TYPE_CHECKING:
    pass

SCHEMA_VERSION = 2
FORMAT = "speak_neuro table"
LARGEST = 1e20
"""Bound on currents and constants: far from it, no text is long enough for the potential to overflow."""
_ADVICE = "make one with speak-export --to table"


class State(NamedTuple):
    """A place in a text, from which the run can go on."""

    potential: np.float32
    recent: str
    """The last k - 1 characters, fewer near the text's beginning."""


@dataclass(frozen=True)
class CompiledTable:
    """A tokenizer of k tables. V characters, the unknown one (id 0) included."""

    alphabet: Alphabet
    current: Float32Array
    """(k, V) parts of I, by delay and by the alphabet's id."""
    gate: Float32Array
    """(k, V) parts of the gate logit e: a spike resets hard where their sum is above 0. The reset mode is already in
    them: modes that ignore the gate have a constant one."""
    neuron: NeuronParameters = field(default_factory=NeuronParameters)
    """Scalars."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Where the table comes from; nothing that execution needs."""

    def __post_init__(self) -> None:
        compiled_reset(self.neuron.mode)  # refuses a mode that the loops over tables do not have
        for name in ("current", "gate"):
            value = np.asarray(getattr(self, name))
            if value.dtype != np.float32 or value.ndim != 2 or value.shape[1] != len(self.alphabet):
                raise ValueError(
                    f"{name} is {value.dtype} {value.shape}; allowed: float32 (k, {len(self.alphabet)}), "
                    "one for each character of the alphabet and one for unknown characters"
                )
            self._bounded(name, value)
        if self.current.shape != self.gate.shape or not len(self.gate):
            raise ValueError(
                f"current is {self.current.shape}, gate {self.gate.shape}; allowed: the same, k at least 1"
            )
        for name in CONSTANTS:
            if np.size(getattr(self.neuron, name)) != 1:
                raise ValueError(f"{name} has {np.size(getattr(self.neuron, name))} values; allowed: one neuron")
            self._bounded(name, np.asarray(getattr(self.neuron, name)))
        with np.errstate(over="ignore"):
            self._bounded("gain * current", self.neuron.gain * self.current)
        self._bounded("soft reset", self.neuron.soft_reset)

    @staticmethod
    def _bounded(name: str, value: npt.NDArray[Any]) -> None:
        if not np.isfinite(value).all():
            raise ValueError(f"{name} holds NaN or infinity; allowed: finite numbers")
        if (np.abs(value) > LARGEST).any():
            raise ValueError(f"{name} reaches {np.abs(value).max():g}; allowed: up to {LARGEST:g}")

    @property
    def taps(self) -> int:
        """k, the characters that decide a current."""
        return len(self.current)

    def constants(self) -> tuple[np.float32, np.float32, np.float32, np.float32, np.float32]:
        """gain, decay, threshold, reset_potential, soft_reset."""
        p = self.neuron
        gain, decay, threshold, reset, soft = (
            np.float32(np.asarray(value).reshape(-1)[0])
            for value in (p.gain, p.decay, p.threshold, p.reset_potential, p.soft_reset)
        )
        return gain, decay, threshold, reset, soft

    def start(self) -> State:
        """The beginning of a text."""
        return State(self.constants()[3], "")

    def after(self, state: State, text: str, potential: np.float32) -> State:
        """The state behind `text`."""
        held = self.taps - 1
        return State(potential, (state.recent + text)[-held:] if held else "")

    def spikes(
        self, text: str, state: State | None = None, hard_only: bool = False
    ) -> tuple[npt.NDArray[np.bool_], State]:
        """Spikes (L,) of the L characters of `text`, with `hard_only` those that reset hard, and the state after them,
        step by step in plain numpy.

        The arithmetic of `reference.gated_lif_step` on scalars; what compiled code is compared with, and used for short
        texts, for which loading compiled code would take longer.
        """
        state = state or self.start()
        gain, decay, threshold, reset, soft = self.constants()
        current, gate = (self._summed(parts, state.recent, text) for parts in (self.current, self.gate))
        drive, hard = list(np.multiply(gain, current, dtype=np.float32)), (gate > 0).tolist()
        v = state.potential  # list() keeps float32 scalars
        fired = np.zeros(len(text), dtype=np.bool_)
        for t, (driven, opened) in enumerate(zip(drive, hard, strict=True)):
            v = decay * v + driven
            if v >= threshold:
                fired[t] = opened or not hard_only
                v = reset if opened else v - soft
        return fired, self.after(state, text, v)

    def _summed(self, parts: Float32Array, recent: str, text: str) -> Float32Array:
        """(L,) sums over the last k characters."""
        parts = np.concatenate([parts, np.zeros((self.taps, 1), np.float32)], axis=1)  # last: before the text
        ids = np.full(self.taps - 1 + len(text), -1, dtype=np.int64)
        known = self.alphabet.encode(recent + text)
        ids[ids.size - known.size :] = known
        total = parts[0][ids[self.taps - 1 :]]
        for delay in range(1, self.taps):
            total = total + parts[delay][ids[self.taps - 1 - delay : ids.size - delay]]
        return np.asarray(total)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, atomically; the same table gives the same bytes."""
        tensors = {
            "code_points": np.array([ord(character) for character in self.alphabet.characters], dtype=np.uint32),
            "current": np.asarray(self.current).reshape(-1),
            "gate": np.asarray(self.gate).reshape(-1),
            **{name: np.asarray(getattr(self.neuron, name), dtype=np.float32).reshape(1) for name in CONSTANTS},
        }
        header = {"taps": self.taps, "mode": self.neuron.mode, "metadata": dict(self.metadata)}
        write_arrays(path, tensors, FORMAT, SCHEMA_VERSION, header)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CompiledTable:
        """Read and check a table; every departure is one SpeakError line naming the file and the field."""
        dtypes = {"code_points": "uint32"} | dict.fromkeys(("current", "gate", *CONSTANTS), "float32")
        tensors, header = read_arrays(path, dtypes, FORMAT, SCHEMA_VERSION, _ADVICE)
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
            taps = header.get("taps")
            if type(taps) is not int or taps < 1:
                raise ValueError(f"taps is {taps!r}; allowed: at least 1")
            for name in ("current", "gate"):
                if tensors[name].size != taps * len(alphabet):
                    raise ValueError(
                        f"{name} holds {tensors[name].size} values; allowed: {taps} x {len(alphabet)}, one for each "
                        "character of the alphabet and one for unknown characters"
                    )
            current, gate = (tensors[name].reshape(taps, -1) for name in ("current", "gate"))
            return cls(alphabet, current, gate, neuron, metadata)
        except ValueError as error:
            raise SpeakError(f"{path}: {error}; {_ADVICE}") from None
