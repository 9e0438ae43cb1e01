"""Which layer of a module feeds which: nirtorch's tracing, read with every operation that is not a layer or a sum
refused.

nirtorch's own graphs of such modules can be wrong without a word: two inputs of one neuron become one sum, constants
and second inputs vanish, an edge is lost behind a tuple. Its tracer decides what is a layer; the edges are read here.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import snntorch
import torch
from torch import fx, nn

from speak_neuro.errors import MissingExtra, SpeakError
from speak_neuro.export.modules.nodes import STATEFUL
from speak_neuro.neuron.module import GatedLeaky, GatedLeakyCell

try:
    from nirtorch.torch_tracer import NIRTorchTracer
except ImportError as error:
    raise MissingExtra("nirtorch is not installed: pip install 'speak-neuro[export]'") from error


class Untraceable(SpeakError):
    """A module whose graph cannot be read; the message names what is in the way."""


@dataclass(frozen=True)
class Signal:
    """A sum of layers' outputs, by name; "" is the module's input."""

    sources: tuple[str, ...]
    before: frozenset[str] = frozenset()
    """Those of the step before: spikes that the module returned and got back."""


@dataclass(frozen=True)
class _Kept:
    """A state, or a tuple of output and states of the layer `source`."""

    source: str | None = None


@dataclass
class Wiring:
    """Layers in the order of their calls, with what goes into each, and what comes out of the module."""

    layers: dict[str, nn.Module] = field(default_factory=dict)
    inputs: dict[str, tuple[Signal, ...]] = field(default_factory=dict)
    """One signal, or current and gate logit."""
    output: Signal = Signal(())


def trace(module: nn.Module) -> Wiring:
    """The wiring of one step, or of a whole sequence, of `module`."""
    if isinstance(module, STATEFUL) or not list(module.children()):
        return Wiring({"layer": module}, {"layer": (Signal(("",)),)}, Signal(("layer",)))
    try:
        graph = NIRTorchTracer((*STATEFUL, snntorch.SpikingNeuron)).trace(module)
    except Exception as error:  # torch.fx fails in many ways: at loops over a proxy, at conditions, at len
        raise Untraceable(
            f"{type(module).__name__}.forward cannot be traced ({' '.join(str(error).split())}); allowed: one "
            "step of the "
            "network, or layers that take whole sequences; no loop over time, no condition on values"
        ) from error
    return _Reader(module).read(graph)


class _Reader:
    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._values: dict[fx.Node, Signal | _Kept] = {}
        self._states: dict[fx.Node, Any] = {}  # a state that goes in -> what came out in its place
        self._wiring = Wiring()

    def read(self, graph: fx.Graph) -> Wiring:
        first = True
        self._match_states(graph)
        for node in graph.nodes:
            if node.op == "placeholder":
                self._values[node] = Signal(("",)) if first else _Kept()
                first = False
            elif node.op == "call_module":
                self._values[node] = self._layer(node)
            elif node.op in ("call_function", "call_method"):
                self._values[node] = self._function(node)
            elif node.op == "get_attr":
                raise Untraceable(f"forward uses the tensor {node.target} beside its layers; allowed: layers and sums")
            elif node.op == "output":
                self._output(node.args[0])
        return self._wiring

    def _match_states(self, graph: fx.Graph) -> None:
        """`out, *states = module(x, *states)`: which value comes back as which argument."""
        places = [node for node in graph.nodes if node.op == "placeholder"]
        (returned,) = next(node for node in reversed(graph.nodes) if node.op == "output").args
        if isinstance(returned, (tuple, list)):
            self._states = dict(zip(places[1:], returned[1:], strict=False))

    def _layer(self, node: fx.Node) -> Signal | _Kept:
        name = str(node.target)
        layer = self._module.get_submodule(name)
        if name in self._wiring.layers:
            raise Untraceable(f"{name} is called twice; allowed: a layer for each call")
        self._wiring.layers[name] = layer
        args, kwargs = list(node.args), dict(node.kwargs)
        signals = [self._signal(args[0], name)] if args else []
        gate: Any = kwargs.pop("gate_logit", None)
        rest = args[1:]
        at = {GatedLeaky: 0, GatedLeakyCell: 1}.get(type(layer))
        if at is not None and len(rest) > at:
            gate = rest.pop(at)
        if gate is not None:
            signals.append(self._signal(gate, name))
        for value in [*rest, *kwargs.values()]:
            if isinstance(value, fx.Node) and not isinstance(self._values[value], _Kept):
                raise Untraceable(
                    f"{name} takes {value.name} as a second input; allowed: one input, states, a gate logit"
                )
        self._wiring.inputs[name] = tuple(signals)
        tuples = isinstance(layer, STATEFUL) and not self._alone(layer)
        return _Kept(name) if tuples else Signal((name,))

    @staticmethod
    def _alone(layer: Any) -> bool:
        """Whether a layer of neurons returns its spikes alone."""
        if isinstance(layer, GatedLeaky):
            return layer.returns == "spikes"
        if isinstance(layer, GatedLeakyCell):
            return layer.init_hidden
        return bool(layer.init_hidden and not layer.output)

    def _function(self, node: fx.Node) -> Signal | _Kept:
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        if node.target in (operator.getitem, getattr):
            value = self._values[node.args[0]]  # type: ignore[index]
            if not isinstance(value, _Kept):
                raise Untraceable("forward takes a part of a layer's output; allowed: layers and sums")
            wanted = node.args[1] in (0, "spikes") and value.source is not None
            return Signal((value.source,)) if wanted and value.source else _Kept()
        if node.target in (operator.add, operator.iadd, torch.add, "add", "add_"):
            if len(node.args) != 2 or node.kwargs or not all(isinstance(arg, fx.Node) for arg in node.args):
                raise Untraceable(f"forward adds a constant ({name}{node.args[1:]}); allowed: sums of layers")
            parts = [self._signal(arg, name) for arg in node.args]
            sources = parts[0].sources + parts[1].sources
            if len(set(sources)) != len(sources):
                raise Untraceable(f"forward adds {sources[0] or 'its input'} to itself; NIR's edges count once")
            return Signal(sources, parts[0].before | parts[1].before)
        if node.target in (torch.flatten, "flatten"):
            layer = nn.Flatten(*node.args[1:], **node.kwargs)  # type: ignore[arg-type]
            if not node.args[1:] and "start_dim" not in node.kwargs:
                raise Untraceable("forward flattens the batch; allowed: start_dim 1")
            self._wiring.layers[node.name] = layer
            self._wiring.inputs[node.name] = (self._signal(node.args[0], name),)
            return Signal((node.name,))
        raise Untraceable(f"forward calls {name}; allowed: layers, sums, flatten")

    def _signal(self, value: Any, user: str) -> Signal:
        found = self._values.get(value) if isinstance(value, fx.Node) else None
        if isinstance(found, _Kept) and (name := self._spikes_before(value)):
            return Signal((name,), frozenset((name,)))
        if isinstance(found, _Kept) and found.source is None:
            raise Untraceable(f"{user} takes a state or a second input of forward; allowed: signals of layers")
        if isinstance(found, _Kept):
            raise Untraceable(
                f"{user} takes the tuple that {found.source} returns; allowed: its first part, the spikes"
            )
        if found is None:
            raise Untraceable(f"{user} takes the constant {value!r}; allowed: signals of layers")
        return found

    def _spikes_before(self, value: fx.Node) -> str | None:
        """The layer whose spikes of the step before a state that goes in is."""
        came_out = self._states.get(value)
        if not isinstance(came_out, fx.Node):
            return None
        if came_out.op == "call_module":
            return str(came_out.target)
        first = came_out.op == "call_function" and came_out.target is operator.getitem and came_out.args[1] == 0
        layer = came_out.args[0] if first else None
        return str(layer.target) if isinstance(layer, fx.Node) and layer.op == "call_module" else None

    def _output(self, value: Any) -> None:
        first = value[0] if isinstance(value, (tuple, list)) else value
        found = self._values.get(first) if isinstance(first, fx.Node) else None
        if isinstance(found, _Kept) and found.source:
            found = Signal((found.source,))
        if not isinstance(found, Signal):
            raise Untraceable("forward returns a state first; allowed: the output, then states")
        self._wiring.output = found
