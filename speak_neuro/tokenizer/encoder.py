"""What a context encoder is: character ids to the features that the neuron's two readouts see (paper Eq. 2, 7, 8).

    f = encoder(c)        I = readout1(f)        e = readout2(f)

An encoder is one file beside this one and one line of `config.ENCODERS`. All are causal: f_t depends on characters up
to t. What a class says of itself decides the rest: how inference computes it, whether it becomes tables (speak-export
--to table, --fold), how large its currents can be. B batch, L positions, D width, V alphabet.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, cast

from torch import Tensor, nn

from speak_neuro.common.array_types import Float64Array
from speak_neuro.config import ENCODERS, ModelConfig, TokenizerConfig


class Readout(Protocol):
    """A linear map of the features to one number for each position."""

    weight: Tensor
    """(1, D)."""
    bias: Tensor
    """(1,)."""
    in_features: int

    def __call__(self, features: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, 1)."""


class Encoder(nn.Module):
    """The base: features (B, L, D) of the present character alone, read by two Linear layers."""

    needs_hidden: ClassVar[bool] = False
    """Whether it reads the language model's pre-layers (B, L, width)."""
    why_no_table: ClassVar[str] = ""
    """Why its currents are no sums over single characters, as the end of a sentence; empty where they are."""
    adds_parts: ClassVar[bool] = False
    """Whether the features are parts of current and gate logit, which the readouts only add up."""
    left_context: int = 0
    """Characters before the present one that it reads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        """D."""

    @classmethod
    def build(cls, config: TokenizerConfig, model: ModelConfig, vocabulary: int) -> Encoder:
        """The encoder that the settings describe."""
        raise NotImplementedError

    def readouts(self) -> tuple[Readout, Readout]:
        """Readouts of the current and of the gate logit, each (B, L, D) -> (B, L, 1)."""
        current, gate = (nn.Linear(self.width, 1) for _ in range(2))
        return cast(Readout, current), cast(Readout, gate)

    def offsets(self, current: Readout) -> list[tuple[Tensor, float]]:
        """The numbers to which a constant on the current is added, and how much of it each takes."""
        return [(current.bias, 1.0)]

    @property
    def of_one_character(self) -> bool:
        """Whether the features are a function of the present character: then one pass over the alphabet is a table."""
        return not self.needs_hidden and self.left_context == 0

    @property
    def tables(self) -> Tensor | None:
        """(k, V, 2) numbers by delay, character, and current or gate, whose sums are the readouts; None where there are
        none, or where `of_one_character` makes them."""
        return None

    def feature_range(self) -> tuple[Float64Array, Float64Array] | None:
        """The least and the largest value (D,) of each feature, whatever the text; None where nothing can be said."""
        return None


def build_encoder(config: TokenizerConfig, model: ModelConfig, vocabulary: int) -> Encoder:
    """The encoder that `config` names."""
    encoder: Encoder = ENCODERS.load(config.encoder).build(config, model, vocabulary)
    return encoder
