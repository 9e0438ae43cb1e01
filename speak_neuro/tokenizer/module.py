"""SpeakTokenizer: encoder, two linear readouts and the gated-reset neuron.

    f = encoder(c)      I = Linear1(f), optionally tanh (Eq. 2)      e = Linear2(f) (Eq. 8)      s, u, v = neuron(I, e)

State goes in and comes out; the module keeps none. B batch, L positions, D feature width.

On an integer grid (tokenizer.grid) features, current, gate logit and potential are integers, `unit` steps per unit of
the configuration.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from speak_neuro.config import NeuronConfig, RunConfig
from speak_neuro.neuron.module import GatedLeaky
from speak_neuro.neuron.resets import HARD, RESETS
from speak_neuro.system_facts import SystemFacts
from speak_neuro.tokenizer.encoder import Readout, build_encoder
from speak_neuro.tokenizer.grid import Grid

EPSILON = 1e-6


class BoundaryInputs(NamedTuple):
    """What the neuron is driven by."""

    features: Tensor
    """(B, L, D), the readouts' input."""
    current: Tensor
    """I, (B, L)."""
    gate_logit: Tensor
    """e, (B, L)."""


class Boundaries(NamedTuple):
    """One pass of the tokenizer over a batch."""

    current: Tensor
    gate_logit: Tensor
    membrane: Tensor
    """u before reset, (B, L)."""
    spikes: Tensor
    """0 or 1, (B, L): a spike at t closes the token whose last character is t."""
    state: Tensor
    """v after the last position, (B,)."""


class SpeakTokenizer(nn.Module, SystemFacts):
    """Character ids to token boundaries."""

    current_readout: Readout
    gate_readout: Readout

    @classmethod
    def needs_exemplar(cls, config: RunConfig) -> bool:
        return config.training.drive == "proxy"

    @classmethod
    def knob(cls, config: RunConfig) -> str | None:
        return "nats" if config.training.drive == "information" else "price"

    @classmethod
    def check(cls, config: RunConfig) -> str:
        training, target = config.training, config.training.target_sf
        if training.drive == "information" and not target:
            return "--drive information needs to know how much a token may hold; give --target-sf, as 4"
        if training.drive == "information" and config.neuron.reset_mode == "none":
            return "--drive information with --reset-mode none would never end a token twice; take another mode"
        if target and config.tokenizer.tanh:
            return "--target-sf shifts the current, which --tanh bounds; leave one of them away"
        if target and training.drive == "proxy" and training.neuron_loss == "membrane":
            return "--target-sf is held by the price of a spike, which L_mem has not; add --neuron-loss spike"
        if config.tokenizer.unpooling == "smooth" and training.drive == "proxy" and training.acceptance != "never":
            return "--unpooling smooth reads potentials, which proxies have not; add --acceptance never"
        return ""

    def __init__(self, config: RunConfig, vocabulary: int) -> None:
        super().__init__()
        self.encoder = build_encoder(config.tokenizer, config.model, vocabulary)
        self.current_readout, self.gate_readout = self.encoder.readouts()
        self.tanh = config.tokenizer.tanh
        self.smooth = config.tokenizer.unpooling == "smooth"
        self.grid = Grid.of(config.neuron, not self.encoder.why_no_table) if config.tokenizer.grid != "none" else None
        n = config.neuron
        self.neuron = GatedLeaky(
            decay=n.decay,
            gain=n.gain,
            threshold=self.grid.threshold if self.grid else n.threshold,
            reset_potential=self.grid.reset_potential(n) if self.grid else n.reset_potential,
            reset_scale=n.reset_scale,
            mode=n.reset_mode,
            surrogate_slope=n.surrogate_slope / self.unit,
            detach_reset=n.detach_reset,
            learn_gate="own-loss",
        )
        if config.training.drive == "information" and config.training.target_sf:
            self._begin_regular(max(1, round(config.training.target_sf)), n)

    @torch.no_grad()
    def _begin_regular(self, length: int, n: NeuronConfig) -> None:
        """A constant current c that ends a token at every `length`-th character after a hard reset.

        threshold = reset * decay^length + gain * c * (1 + decay + ... + decay^(length-1))

        A neuron that has learned nothing would be silent, and what holds its rate would drift away meanwhile.
        """
        reached = sum(n.decay**power for power in range(length))
        # Sums of rounded numbers have to reach the threshold too.
        constant = (n.threshold - n.reset_potential * n.decay**length) / max(n.gain * reached, EPSILON) * (1 + EPSILON)
        if self.grid is not None:
            constant = math.ceil(constant * self.unit) / self.unit
        self.current_readout.bias.zero_()
        if not self.encoder.adds_parts:  # features have a mean, which any weights turn into a current
            self.current_readout.weight.zero_()
        for bias, share in self.encoder.offsets(self.current_readout):
            bias += share * constant

    @property
    def needs_hidden(self) -> bool:
        """Whether the encoder reads the language model's pre-layers."""
        return self.encoder.needs_hidden

    @property
    def unit(self) -> float:
        """Steps of current, gate logit and potential per unit of the configuration: 1 off the grid."""
        return self.grid.unit if self.grid else 1.0

    def inputs(self, ids: Tensor, hidden: Tensor | None = None) -> BoundaryInputs:
        """Features, current and gate logit of (B, L) ids."""
        features = self.encoder(ids, hidden).float()
        if self.grid is not None:
            features = self.grid.features(features, parts=self.encoder.adds_parts)
            lanes = [nn.functional.linear(features, *readout).squeeze(-1) for readout in self.readouts()]
            return BoundaryInputs(features, *lanes)
        current = self.current_readout(features).squeeze(-1)
        if self.tanh:
            current = torch.tanh(current)
        return BoundaryInputs(features, current, self.gate_readout(features).squeeze(-1))

    def readouts(self) -> list[tuple[Tensor, Tensor]]:
        """Weight (1, D) and bias (1,) of the current's and the gate's readout, on the grid if there is one."""
        both = [self.current_readout, self.gate_readout]
        if self.grid is None or self.encoder.adds_parts:
            return [(readout.weight, readout.bias) for readout in both]
        return [(self.grid.weight(readout.weight), self.grid.bias(readout.bias)) for readout in both]

    def forward(
        self, ids: Tensor, hidden: Tensor | None = None, state: Tensor | None = None, valid: Tensor | None = None
    ) -> Boundaries:
        """Boundaries of (B, L) ids, from `state` (B,) (default: the reset potential)."""
        # The neuron and its readouts stay in float32 whatever the language model computes in: a spike is a
        # comparison of accumulated sums, and bfloat16 would decide it by rounding.
        with torch.autocast(ids.device.type, enabled=False):
            _, current, gate_logit = self.inputs(ids, hidden.float() if hidden is not None else None)
            spikes, membrane, carried = self.neuron(current, gate_logit, state, valid)
        return Boundaries(current, gate_logit, membrane, spikes, carried)

    def effective_gate(self, gate_logit: Tensor) -> Tensor:
        """The gate logit as the reset mode reads it: constants +1 or -1 in the modes that ignore the gate."""
        reset = RESETS[self.neuron.mode]
        return gate_logit if reset.reads_gate else torch.full_like(gate_logit, 1.0 if reset.open is HARD else -1.0)

    def confidence(self, found: Boundaries) -> Tensor | None:
        """How sure each decision is, (B, L), with a gradient, where un-pooling is smooth: p = sigmoid(slope *
        (u - threshold)) at a spike, 1 - p elsewhere; None where tokens are read as they are."""
        if not self.smooth:
            return None
        distance = self.neuron.surrogate_slope * (found.membrane - self.neuron.threshold)
        return torch.sigmoid(torch.where(found.spikes.bool(), distance, -distance))
