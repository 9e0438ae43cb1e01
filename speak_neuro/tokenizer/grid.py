"""Training on Loihi 2's integer grid: the deployed neuron is the trained one, spike for spike.

With unit = T / threshold grid steps per unit of potential, everything that reaches the neuron is an integer:

    x = round(2^p features)              graded spikes
    q = round(unit W / 2^p)              readout weights          b = round(unit bias)
    I = q x + b                          current in grid steps, and the gate logit likewise

T is a multiple of the denominators of reset_scale and reset_potential / threshold, so the resets are integers too, and
the neuron runs in grid steps with threshold T. Sums of integers below 2^24 are exact in float32 in any order and on any
device: training, inference, NIR, Lava's floating point and Lava's fixed point compute the same numbers. In gradients a
rounding counts as the identity (straight-through); beyond a format's range the gradient is zero.

The convolution encoder's features are parts of the current itself: their step is the grid's, their weights are 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from speak_neuro.config import NeuronConfig
from speak_neuro.neuron.integer import PAYLOAD_LIMIT, STATE_LIMIT, WEIGHT_LIMIT, float32_fraction

LARGEST_THRESHOLD = 20480
"""Upper end of T. It leaves 409 thresholds of range in a 24-bit state and 819 in exact float32."""
LARGEST_TABLE_THRESHOLD = 5120
"""The same where a character's whole current is one 16-bit weight of a folded tokenizer: up to 6.4 thresholds."""


@dataclass(frozen=True)
class Grid:
    """The formats of one configuration."""

    threshold: int
    """T."""
    unit: float
    """Grid steps per unit of potential."""
    feature_bits: int
    """p: features in steps of 2^-p."""

    @classmethod
    def of(cls, neuron: NeuronConfig, table: bool = False) -> Grid:
        """The grid of a neuron; ValueError when its resets need a larger T than there is.

        `table` says that the currents are a table over the alphabet, which folding makes into weights.
        """
        largest = LARGEST_TABLE_THRESHOLD if table else LARGEST_THRESHOLD
        fractions = float32_fraction(neuron.reset_scale), float32_fraction(neuron.reset_potential / neuron.threshold)
        multiple = math.lcm(*(fraction.denominator for fraction in fractions))
        if multiple > largest:
            near = float(fractions[0].limit_denominator(1000))
            raise ValueError(
                f"reset_scale {neuron.reset_scale} and reset_potential {neuron.reset_potential} need a threshold that "
                f"is a multiple of {multiple}; allowed on the grid: up to {largest} (try {near:g})"
            )
        threshold = multiple * 2 ** int(math.log2(largest // multiple))
        return cls(threshold, threshold / neuron.threshold, 4 if table else 5)

    def reset_potential(self, neuron: NeuronConfig) -> float:
        """The neuron's reset potential in grid steps."""
        return float(round(neuron.reset_potential * self.unit))

    def features(self, features: Tensor, parts: bool = False) -> Tensor:
        """Graded spikes of features, or of `parts` of the current and the gate logit, in grid steps."""
        scale = self.unit if parts else 2.0**self.feature_bits
        return _round((features * scale).clamp(-PAYLOAD_LIMIT, PAYLOAD_LIMIT))

    def weight(self, weight: Tensor) -> Tensor:
        """Integer weights on graded spikes."""
        return _round((weight * (self.unit / 2.0**self.feature_bits)).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT))

    def bias(self, bias: Tensor) -> Tensor:
        """Integer bias."""
        return _round((bias * self.unit).clamp(-STATE_LIMIT, STATE_LIMIT))


def _round(value: Tensor) -> Tensor:
    # The difference is zero, exactly, and carries the gradient.
    return value.round().detach() + (value - value.detach())
