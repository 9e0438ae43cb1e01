"""The boundary neuron as a NIR primitive, one discrete-time node with float32 fields of shape (N,).

    u_t = decay * v_{t-1} + gain * I_t                    membrane potential before reset (paper Eq. 1)
    s_t = 1 if u_t >= v_threshold else 0                  spike; note >=, where NIR's stock neurons compare with >
    m_t = 1 if e_t > gate_threshold else 0                gate (Eq. 9); gate_threshold is 0 for logits
    v_t = u_t                                             if s_t = 0
        = v_reset                                         if s_t = 1 and m_t = 1   hard reset
        = u_t - reset_scale * v_threshold                 if s_t = 1 and m_t = 0   scaled soft reset

v starts at v_reset. NIR edges have no ports, so the node takes one vector of 2N lanes, [I_1..I_N | e_1..e_N], and gives
N spikes. The step is the unit of time: the file stores `decay`, not a time constant, and nothing is lost to a division
by dt. There is no field for the reset mode: a mode is written as a constant gate and a `reset_scale` of 0.

Version 2 of the node adds two things, and a file states it only when it uses one of them:

    shape    fields may have the shape (N, ...) of a picture, channels first; lanes then are (2N, ...)
    gate     0: from the lanes, as in version 1;  1, -1: always open, always closed, and the node takes N values, no
             lanes

Importing this module teaches `nir.read` the node. A process that has not imported it stops with an AssertionError on
the unknown type, which is right: no stock primitive computes the same.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError

SPEC_VERSION = 2
FIELDS = ("decay", "gain", "v_threshold", "v_reset", "reset_scale", "gate_threshold")
"""In the order of the constants of `neuron.reference`, and the gate's threshold."""


@dataclass(eq=False)
class GatedResetLIF(nir.NIRNode):
    """Gated-reset leaky integrate-and-fire neurons; every field float32 of one shape, (N,) or (N, ...)."""

    decay: npt.NDArray[np.float32]
    gain: npt.NDArray[np.float32]
    v_threshold: npt.NDArray[np.float32]
    v_reset: npt.NDArray[np.float32]
    reset_scale: npt.NDArray[np.float32]
    gate_threshold: npt.NDArray[np.float32]
    gate: int = 0
    """0: from the lanes; 1: always open; -1: always closed."""
    spec_version: int = 1
    """The least version that says what the node says."""

    def __post_init__(self) -> None:
        self.spec_version = _supported(self.spec_version)
        self.gate = int(self.gate)
        if self.gate not in (0, 1, -1):
            raise ValueError(f"gate is {self.gate}; allowed: 0 (from the lanes), 1 (open), -1 (closed)")
        for name in FIELDS:
            value = np.asarray(getattr(self, name))
            if value.dtype != np.float32 or value.ndim < 1 or value.size == 0:
                raise ValueError(
                    f"{name} is {value.dtype} of shape {value.shape}; allowed: float32 of shape (N,), N at least 1"
                )
            if value.shape != np.shape(self.decay):
                raise ValueError(f"{name} has shape {value.shape}; allowed: decay's {np.shape(self.decay)}")
            if not np.isfinite(value).all():
                raise ValueError(f"{name} is {value}; allowed: finite numbers")
            setattr(self, name, value)
        if (self.decay < 0).any() or (self.decay > 1).any():
            raise ValueError(f"decay is {self.decay}; allowed: 0 to 1")
        if (self.v_threshold <= self.v_reset).any():
            raise ValueError(f"v_threshold is {self.v_threshold}; allowed: above v_reset {self.v_reset}")
        if self.gate or self.decay.ndim > 1:
            self.spec_version = 2
        _guard_nirtorch()
        neurons, *places = self.decay.shape
        self.input_type = {"input": np.array([neurons if self.gate else 2 * neurons, *places])}
        self.output_type = {"output": np.array([neurons, *places])}

    def to_dict(self) -> dict[str, Any]:
        """The fields of a file; those of version 2 only where it needs them, so that older readers read the others."""
        found: dict[str, Any] = super().to_dict()
        if self.spec_version == 1:
            del found["gate"]
        return found

    @classmethod
    def from_dict(cls, kwargs: dict[str, Any]) -> GatedResetLIF:
        """Build the node from the fields of a file; a newer spec version is refused before its fields are looked at."""
        version = _supported(kwargs.get("spec_version", 1))
        missing = [name for name in FIELDS if name not in kwargs]
        if missing:
            raise ValueError(f"a GatedResetLIF lacks {', '.join(missing)}")
        unknown = sorted(
            set(kwargs) - {*FIELDS, "type", "metadata", "spec_version", *(["gate"] if version > 1 else [])}
        )
        if unknown:
            raise ValueError(f"a GatedResetLIF has unknown fields {', '.join(unknown)}")
        if version == 1 and np.ndim(kwargs["decay"]) != 1:
            raise ValueError(f"decay has shape {np.shape(kwargs['decay'])}; allowed in spec_version 1: (N,)")
        return super().from_dict(kwargs)


def _supported(spec_version: Any) -> int:
    number = np.asarray(spec_version)
    if number.size != 1 or number.dtype.kind not in "iu":
        raise ValueError(f"GatedResetLIF spec_version is {spec_version!r}; allowed: a whole number")
    version = int(number.reshape(-1)[0])
    if version > SPEC_VERSION:
        raise SpeakError(
            f"GatedResetLIF spec_version is {version}, this speak-neuro reads up to {SPEC_VERSION}: update speak-neuro"
        )
    if version < 1:
        raise ValueError(f"GatedResetLIF spec_version is {version}; allowed: 1 to {SPEC_VERSION}")
    return version


def _guard_nirtorch() -> None:
    """Make `nirtorch.load`, by which norse and sinabs read, refuse this node where a reader has no module for it.

    As it is, it leaves such a node out without a word. nirtorch is not imported for that: the guard is set when a node
    is made while nirtorch is loaded, before which there is nothing to leave out, unless a reader is imported later.
    """
    loader = sys.modules.get("nirtorch.from_nir")
    original = getattr(loader, "_switch_default_models", None)
    if original is None or getattr(original, "refuses_gated_neurons", False):
        return

    def refusing(node: Any) -> Any:
        found = original(node)
        if found is None and isinstance(node, GatedResetLIF):
            raise SpeakError(
                "this reader has no module for a GatedResetLIF and would leave it out: use "
                "speak_neuro.export.readers (norse, sinabs) or speak_neuro.export.from_nir"
            )
        return found

    refusing.refuses_gated_neurons = True  # type: ignore[attr-defined]
    loader._switch_default_models = refusing  # type: ignore[union-attr]


def register() -> None:
    """Teach `nir.read` about GatedResetLIF; calling it again changes nothing.

    NIR has no public registry: its reader looks a type name up in a list of names and in its own module. When that
    layout is gone this fails with a sentence instead of leaving a half-registered node.
    """
    name = GatedResetLIF.__name__
    known = vars(nir.ir).get("__all_ir")
    if not isinstance(known, list):
        version = getattr(nir, "version", "unknown")
        raise SpeakError(f"nir {version} has no list of node types to add {name} to: install 'nir>=1.0.8,<1.1'")
    present = getattr(nir.ir, name, None)
    if present is not None and present is not GatedResetLIF:
        raise SpeakError(f"nir already has another {name}, from {present.__module__}: remove one of the two packages")
    setattr(nir.ir, name, GatedResetLIF)
    if name not in known:
        known.append(name)


register()
