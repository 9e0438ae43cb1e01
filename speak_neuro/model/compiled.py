"""The language model's two passes through torch.compile, in shapes that repeat.

A compiled pass belongs to one set of shapes. Rows and positions are the same at every training step, and the number of
slots of the shortened layers is rounded up to one of SIZES sizes:

    slots = m * ceil((1 + most boundaries of a row) / m),      m = ceil((L + 1) / SIZES)

The slots that this adds hold zeros behind a row's last segment, which no position reads, so logits and gradients stay
what they were but for rounding. Compiled passes serve training alone: evaluation sees other shapes, and is not worth
the seconds that compiling takes. Attention is torch's own there (`sdpa`): the blocked backend's hand-written gradient
is a loop that a compiler cannot fuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from speak_neuro.model.attention import RelativeAttention
from speak_neuro.model.hourglass import Hourglass

SIZES = 8
VARIANTS = 4
"""Of each size: with and without gradient, a drawn segmentation and a fixed one."""


def compile_passes(model: Hourglass, length: int, backend: str = "inductor", mode: str | None = None) -> None:
    """Let `model` train through compiled passes over rows of `length` positions.

    `backend` and `mode` are torch.compile's; mode "reduce-overhead" makes CUDA graphs.
    """
    if length < 1:
        raise ValueError(f"length is {length}; allowed: at least 1")
    model.slot_multiple = -(-(length + 1) // SIZES)
    for module in model.modules():
        if isinstance(module, RelativeAttention) and module.backend == "auto":
            module.backend = "sdpa"
    # Beyond the limit torch goes on uncompiled; that many shapes are a fault here, and an error then.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SIZES * VARIANTS)
    torch._dynamo.config.fail_on_recompile_limit_hit = True

    def in_training(eager: Callable[..., Any]) -> Callable[..., Any]:
        compiled = torch.compile(eager, dynamic=False, fullgraph=True, backend=backend, mode=mode)
        return lambda *inputs: (compiled if model.training else eager)(*inputs)

    model.pre = in_training(model.pre)  # type: ignore[method-assign]
    model.read_back = in_training(model.read_back)  # type: ignore[method-assign]
