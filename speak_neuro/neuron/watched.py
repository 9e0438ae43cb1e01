"""Whether torch is watching: tracing, exporting, or differentiating and batching a function as `torch.func` does.

A fused kernel computes outside torch, on addresses. A watcher sees none of it: at best it fails in words of its own, at
worst it keeps a graph that returns the memory in which the kernel would have written. Where torch watches, the scan
has to be torch operations: the loop.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

PLAIN = (Tensor, torch.nn.Parameter, torch.nn.Buffer)


def watcher(*tensors: Tensor | None) -> str | None:
    """Who watches operations on these tensors, in words; None when they are plain tensors of plain torch."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return "torch.jit.trace"
    if torch.compiler.is_exporting():
        return "torch.export"
    # Asked in this order since a scan of a short text takes tens of microseconds.
    if torch._C._len_torch_dispatch_stack() and get_proxy_mode() is not None:
        return "make_fx"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a transform of torch.func"
    for tensor in tensors:
        if tensor is not None and type(tensor) not in PLAIN:
            return f"a {type(tensor).__name__}"
    return None
