"""When each layer of a network works in the simulator, where a synapse takes a step: latencies, and what they cannot
do.

A linear layer holds its result for one step, as on the chip; everything else answers at once. With `latency` the step
at which a layer gives its value of the network's step 0:

    arrival(n) = max over sources of latency(s)          latency(n) = arrival(n) + 1 for a linear layer, else arrival(n)

A faster source waits in a delay line, and so does a Delay of the network, whose values are so many steps older. An
edge that closes a cycle carries the value of the step before: it may come a step later, arrival(n) + 1 at the most,
or the network asks more of the simulator than it can do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.export.graphs.layers import LINEAR, Delay, Layer, Relay, to_arrays
from speak_neuro.export.graphs.network import Network


@dataclass(frozen=True)
class Feed:
    """What a process gets: the value of `source`, after `wait` steps in a delay line."""

    source: str
    wait: int


@dataclass(frozen=True)
class Plan:
    """Latencies and connections of a network's processes; relays have none."""

    latency: dict[str, int]
    feeds: dict[str, tuple[Feed, ...]]

    @property
    def depth(self) -> int:
        """The largest latency."""
        return max(self.latency.values())


def plan_of(network: Network) -> Plan:
    """The plan, or a SpeakError that names the cycle that is too fast for it."""
    real = {name: _real_sources(network, name) for name in network.layers}
    latency: dict[str, int] = {}
    arrival: dict[str, int] = {}
    for name, layer in network.layers.items():
        arrival[name] = max((latency[s] for s, age in real[name] if age == 0), default=0)
        latency[name] = arrival[name] + (1 if isinstance(layer, LINEAR) else 0)
    feeds: dict[str, tuple[Feed, ...]] = {}
    for name, layer in network.layers.items():
        if (isinstance(layer, Relay) or _uniform(layer)) and name != network.output:
            continue
        found = []
        for source, age in real[name]:
            wait = arrival[name] + age - latency[source]
            if wait < 0:
                raise SpeakError(_too_fast(network, source, name, age, age - wait))
            found.append(Feed(source, wait))
        feeds[name] = tuple(found)
    return Plan(latency, feeds)


def _real_sources(network: Network, name: str) -> list[tuple[str, int]]:
    """Sources behind relays, and how many steps old their values are."""
    found = []
    for source in network.sources[name]:
        age, layer = int(source.delayed), network.layers[source.name]
        steps = _uniform(layer)
        if steps or (isinstance(layer, Relay) and source.name != network.input):
            found += [(real, age + steps + more) for real, more in _real_sources(network, source.name)]
        else:
            found.append((source.name, age))
    return found


def _uniform(layer: Layer) -> int:
    """The steps of a Delay that is one for all elements: it needs no process of its own, its values are older."""
    if not isinstance(layer, Delay) or len(np.unique(layer.steps)) > 1:
        return 0
    return int(layer.steps.max(initial=0))


def _too_fast(network: Network, source: str, target: str, age: int, needed: int) -> str:
    before: dict[str, str] = {target: ""}
    following = [target]
    while following:
        name = following.pop(0)
        for n, sources in network.sources.items():
            if n not in before and any(s.name == name and not s.delayed for s in sources):
                before[n] = name
                following.append(n)
    path, name = [source], source
    while before.get(name):
        name = before[name]
        path.append(name)
    cycle = " -> ".join([*reversed(path), target])
    return (
        f"the cycle {cycle} has {age} step(s) of delay and its synapses take {needed}: "
        f"put a Delay of {needed - age} step(s) into it, or fewer linear layers"
    )


def job_of(network: Network, plan: Plan) -> dict[str, npt.NDArray[Any]]:
    """Network and plan as arrays, the layers' and one JSON text, for the simulation's own interpreter."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in plan.feeds:
        arrays |= to_arrays(f"layer.{name}", network.layers[name])
    spec = {
        "input": network.input,
        "output": network.output,
        "latency": plan.latency,
        "feeds": {name: [[feed.source, feed.wait] for feed in feeds] for name, feeds in plan.feeds.items()},
        "width": {name: network.width(name) for name in network.layers},
        "neurons": network.neurons(),
    }
    return {**arrays, "network": np.asarray(json.dumps(spec))}
