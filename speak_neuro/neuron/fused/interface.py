"""What the fused scan's engines take and give back: settings, inputs, gradients."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Settings(NamedTuple):
    """What the scan needs besides tensors."""

    gate_rule: bool | None
    """None: the gate logit decides between the resets; True: always hard; False: never hard."""
    surrogate_slope: float
    detach_reset: bool
    backend: str = "numba"
    gate_slope: float = 0.0
    """Slope of the straight-through gradient into the gate logit; 0 for none."""


class ScanInputs(NamedTuple):
    """What both passes read, on one device; contiguous where the engine asks for it."""

    current: Tensor
    """I, (B, L) or (B, L, N) float32, as is the gate."""
    gate_logit: Tensor
    state: Tensor
    """v before the first position, (B,) or (B, N)."""
    valid: Tensor | None
    """(B, L) bool, False at padding."""
    constants: Tensor
    """Rows decay, gain, threshold, reset_potential, soft_reset; (5, 1), or (5, N) with one column per neuron."""

    @property
    def neurons(self) -> int:
        return self.current.shape[2] if self.current.dim() == 3 else 1


class Gradients(NamedTuple):
    """Of the inputs."""

    current: Tensor
    state: Tensor
    constants: Tensor | None
    """(5, 1) or (5, N); None when not asked for."""
    gate_logit: Tensor | None = None
    """Straight through; None when not asked for."""
