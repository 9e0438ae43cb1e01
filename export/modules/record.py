"""Runs a module on a sample, sequence or step by step, and keeps what each layer took and gave.

A sample is (B, T, ...). A module whose neurons are GatedLeaky takes it whole; any other takes one step at a time, (B,
...), and returns its output, followed by the states that it wants back: `out, *states = module(x, *states)`, or keeps
them itself (init_hidden). Every call begins without a state.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import snntorch
import torch
from torch import Tensor, nn

from speak_neuro.common.array_types import Array
from speak_neuro.errors import SpeakError
from speak_neuro.export.modules.nodes import STATEFUL
from speak_neuro.neuron.module import GatedLeaky, GatedLeakyCell

SNNTORCH = (snntorch.Leaky, snntorch.Synaptic, snntorch.RLeaky)


@dataclass
class Seen:
    """What one leaf took and gave, (B, T, ...) after `close`."""

    inputs: list[list[Tensor]] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    before: list[Tensor] = field(default_factory=list)
    """Potentials before reset, of neurons."""


@dataclass(frozen=True)
class Record:
    """A module's run: what each leaf took, gave and had for a potential, by its qualified name, and the output."""

    inputs: dict[str, tuple[Array, ...]]
    outputs: dict[str, Array]
    membranes: dict[str, Array]
    output: Array
    whole: bool
    """Whether the module took the sequence at once."""


def is_whole(module: nn.Module) -> bool:
    """Whether the module takes whole sequences: it has GatedLeaky and no neuron that goes step by step."""
    kinds = [type(m) for m in module.modules() if isinstance(m, STATEFUL)]
    if not kinds:
        return False
    stepwise = [kind for kind in kinds if kind is not GatedLeaky]
    if stepwise and GatedLeaky in kinds:
        raise SpeakError(
            f"the module has GatedLeaky, which takes sequences, beside {stepwise[0].__name__}, which takes steps; "
            "allowed: GatedLeakyCell (or `GatedLeaky.cell()`) beside it"
        )
    return not stepwise


def record_run(module: nn.Module, sample: Tensor) -> Record:
    """Run `module` in evaluation on `sample` (B, T, ...), without gradients."""
    if not isinstance(sample, Tensor) or sample.dim() < 2 or 0 in sample.shape:
        raise SpeakError("the sample must be a tensor (batch, time, ...), not empty")
    if not torch.isfinite(sample.float()).all():
        raise SpeakError("the sample holds NaN or infinity")
    whole, training = is_whole(module), {m: m.training for m in module.modules()}
    seen: dict[str, Seen] = {}
    leaves = _leaves(module)
    hooks = [
        leaf.register_forward_hook(_hook(seen.setdefault(name, Seen()), leaf), with_kwargs=True)
        for name, leaf in leaves
    ]
    undo = [_watch(seen[name], leaf) for name, leaf in leaves if isinstance(leaf, STATEFUL)]
    module.eval()
    try:
        with torch.no_grad():
            _forget(module)
            output = _first(module(sample)) if whole else _steps(module, sample)
            _forget(module)
    except SpeakError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise SpeakError(f"the module does not run on a sample of shape {tuple(sample.shape)}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
        for end in undo:
            end()
        for m, mode in training.items():
            m.training = mode

    def join(values: list[Tensor]) -> Array:
        return (values[0] if whole else torch.stack(values, dim=1)).detach().cpu().numpy()

    return Record(
        inputs={
            n: tuple(join(list(column)) for column in zip(*s.inputs, strict=True)) for n, s in seen.items() if s.outputs
        },
        outputs={n: join(s.outputs) for n, s in seen.items() if s.outputs},
        membranes={n: join(s.before) for n, s in seen.items() if s.before},
        output=output.detach().cpu().numpy(),
        whole=whole,
    )


def _leaves(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers of neurons, and modules without children outside them."""
    found: list[tuple[str, nn.Module]] = []

    def visit(name: str, m: nn.Module) -> None:
        if isinstance(m, STATEFUL) or not list(m.children()):
            found.append((name, m))
            return
        for child, inner in m.named_children():
            visit(f"{name}.{child}" if name else child, inner)

    visit("", module)
    return found


def _hook(seen: Seen, leaf: nn.Module) -> Callable[..., None]:
    def keep(_: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        gate = [kwargs["gate_logit"]] if kwargs.get("gate_logit") is not None else []
        given = [args[0], *gate]
        if isinstance(leaf, GatedLeaky) and len(args) > 1 and args[1] is not None:
            given = [args[0], args[1]]
        if isinstance(leaf, GatedLeakyCell) and len(args) > 2 and args[2] is not None:
            given = [args[0], args[2]]
        seen.inputs.append([value.detach().clone() for value in given])
        seen.outputs.append(_first(out).detach().clone())

    return keep


def _watch(seen: Seen, leaf: Any) -> Callable[[], None]:
    """Keep the potentials before reset, which some calls do not return; returns what undoes it."""
    method = "fire" if isinstance(leaf, SNNTORCH) else ("_scan" if isinstance(leaf, GatedLeaky) else "_advance")
    original = getattr(leaf, method)

    def watched(*args: Any, **kwargs: Any) -> Any:
        out = original(*args, **kwargs)
        seen.before.append((args[0] if method == "fire" else out.membrane).detach().clone())
        return out

    setattr(leaf, method, watched)
    return lambda: delattr(leaf, method)


def _steps(module: nn.Module, sample: Tensor) -> Tensor:
    takes = inspect.signature(module.forward).parameters.values()
    states_go_in = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in takes) > 1
    states_go_in = states_go_in and not isinstance(module, nn.Sequential)
    states: tuple[Any, ...] = ()
    outputs = []
    for t in range(sample.shape[1]):
        out = module(sample[:, t], *states)
        outputs.append(_first(out))
        states = tuple(out[1:]) if states_go_in and isinstance(out, tuple) else ()
    return torch.stack(outputs, dim=1)


def _first(out: Any) -> Tensor:
    first = out[0] if isinstance(out, tuple) else out
    if not isinstance(first, Tensor):
        raise SpeakError(f"the module returns a {type(first).__name__} first; allowed: its output, a tensor")
    return first


def _forget(module: nn.Module) -> None:
    """Take the state out of every neuron that keeps one: snnTorch's keep theirs even without init_hidden."""
    for m in module.modules():
        if isinstance(m, GatedLeakyCell):
            m.reset_mem()
        elif isinstance(m, SNNTORCH):
            for name in ("mem", "syn", "spk"):
                if isinstance(getattr(m, name, None), Tensor):
                    setattr(m, name, torch.zeros(0, device=getattr(m, name).device))
