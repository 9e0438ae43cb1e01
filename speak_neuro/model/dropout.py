"""Dropout whose masks cost a sixth of Bernoulli draws on the CPU, where those take a tenth of a training step.

One 64-bit draw of the default generator decides four elements, 16 bits each: an element is dropped when its bits, read
as a signed number, fall below a limit. The probability is therefore the asked one rounded to 1 / 65536 (0.1 becomes
6554 / 65536 = 0.100006), and what is kept is divided by exactly the share that is kept, so the mean is exact.
Other devices use `torch.nn.functional.dropout`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_STATES = 1 << 16


def dropped_states(probability: float) -> int:
    """How many of the 65536 states of an element's bits drop it; never all of them."""
    if not 0 <= probability < 1:
        raise ValueError(f"dropout is {probability}; allowed: a probability, 0 <= dropout < 1")
    return min(round(probability * _STATES), _STATES - 1)


def kept_share(probability: float) -> float:
    """The exact share of elements that dropout with `probability` keeps."""
    return 1 - dropped_states(probability) / _STATES


def keep_limit(probability: float) -> int:
    """An element is kept when its `random_bits` are at least this."""
    return dropped_states(probability) - _STATES // 2


def random_bits(shape: Sequence[int]) -> Tensor:
    """Uniform int16 on the CPU, from the default generator."""
    count = math.prod(shape)
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return draws.view(torch.int16)[:count].view(tuple(shape))


class _BitDropout(torch.autograd.Function):
    """Keeps the 16-bit draws rather than the mask: half the memory of a float mask, and as quick to compare again."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, probability: float) -> Tensor:
        bits = random_bits(values.shape)
        ctx.save_for_backward(bits)
        ctx.probability = probability
        return _drop(values, bits, probability)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        return _drop(gradient, bits, ctx.probability), None


def _drop(values: Tensor, bits: Tensor, probability: float) -> Tensor:
    mask = torch.empty(values.shape, dtype=values.dtype)
    torch.ge(bits, keep_limit(probability), out=mask)  # straight to floating point: products with bool are slow
    return mask.mul_(values).mul_(1 / kept_share(probability))


def drop(values: Tensor, probability: float, training: bool = True) -> Tensor:
    """`values` with each element zeroed with `probability` and the others scaled up, when `training`."""
    if not training or dropped_states(probability) == 0:
        return values
    if values.device.type != "cpu" or torch.compiler.is_compiling():  # a compiler makes the mask on its way
        return F.dropout(values, probability)
    return _BitDropout.apply(values, probability)  # type: ignore[no-any-return]


class Dropout(nn.Module):
    """`drop` as a module."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        dropped_states(probability)
        self.probability = probability

    def forward(self, values: Tensor) -> Tensor:
        return drop(values, self.probability, self.training)

    def extra_repr(self) -> str:
        return f"probability={self.probability}"
