"""One stock LIF in place of the gated-reset neuron: for readers that know nothing else. Not the same neuron.

    input -> readout (currents only) -> neuron: LIF, or IF when decay is 1 -> output

The gate is gone and every spike resets to v_reset. How often that changes a boundary is measured on a trace and
written into the file's metadata; there is no bound on it. NIR files do not say how long a step is; this one is stepped
with dt = 1e-4 s:

    decay < 1    tau = dt / (1 - decay),  r = gain tau / dt        v <- v + (dt / tau) (r I - v) = decay v + gain I
    decay = 1    IF with r = gain / dt                             v <- v + dt r I = v + gain I

Readers disagree about r: for those that take it for 1 (Norse), `unit_resistance` writes r = 1 and puts the factor into
the readout's weights; with decay 1 such readers add the input as it is, so there time counts in steps, dt = 1. Spikes
need v > v_threshold in stock nodes, so that is the float just below the neuron's.
"""

from __future__ import annotations

from dataclasses import dataclass

import nir
import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.export.files.trace_file import Trace
from speak_neuro.export.graphs.network import DT, network_of
from speak_neuro.export.graphs.network_run import run_network
from speak_neuro.text.metrics import boundary_scores


@dataclass(frozen=True)
class Disagreement:
    """The approximation against the trained run, over a trace."""

    positions: int
    spikes: int
    approximate_spikes: int
    differing: int
    """Positions where one fires and the other does not."""
    f1: float

    def sentence(self) -> str:
        """For people and for the metadata."""
        return (
            f"{self.differing:,} of {self.positions:,} positions differ from the trained neuron "
            f"({self.spikes:,} spikes, here {self.approximate_spikes:,}; F1 {self.f1:.4f})"
        )


def approximate(exported: ExportedNeuron, *, unit_resistance: bool = False, dt: float = DT) -> nir.NIRGraph:
    """The graph, without a word about how wrong it is: see `disagreement`."""
    n = exported.neurons
    weight, bias = exported.weight[:n].astype(np.float64), exported.bias[:n].astype(np.float64)
    node, factor = _neuron(exported, unit_resistance, dt)
    nodes = {
        "input": nir.Input(input_type={"input": np.array([exported.features])}),
        "neuron": node,
        "output": nir.Output(output_type={"output": np.array([n])}),
        "readout": nir.Affine(
            weight=(weight * factor[:, None]).astype(np.float32), bias=(bias * factor).astype(np.float32)
        ),
    }
    edges = sorted([("input", "readout"), ("readout", "neuron"), ("neuron", "output")])
    return nir.NIRGraph(nodes=nodes, edges=edges, metadata=dict(exported.metadata))


def _neuron(e: ExportedNeuron, unit_resistance: bool, dt: float) -> tuple[nir.NIRNode, npt.NDArray[np.float64]]:
    """The stock neuron and the factor on its currents."""
    decay, gain = e.decay.astype(np.float64), e.gain.astype(np.float64)
    ones = np.ones_like(gain)
    common = {
        "v_threshold": np.nextafter(e.threshold, np.float32(-np.inf)),
        "v_reset": e.reset_potential,
    }
    if (decay == 1).all():
        if unit_resistance:
            return nir.IF(r=ones.astype(np.float32), **common), gain
        return nir.IF(r=(gain / dt).astype(np.float32), **common), ones
    if (decay == 1).any():
        raise SpeakError("some neurons have decay 1 and some less: one stock node cannot hold both")
    tau = dt / (1 - decay)
    resistance = ones if unit_resistance else gain * tau / dt
    node = nir.LIF(
        tau=tau.astype(np.float32),
        r=resistance.astype(np.float32),
        v_leak=np.zeros_like(tau, dtype=np.float32),
        **common,
    )
    return node, gain * tau / dt if unit_resistance else ones


def disagreement(exported: ExportedNeuron, trace: Trace, dt: float = DT) -> Disagreement:
    """Run the stock neuron on the trace's own currents and compare its spikes with the trained neuron's."""
    node, _ = _neuron(exported, False, dt)
    nodes = {
        "input": nir.Input(input_type={"input": np.array([1])}),
        "neuron": node,
        "output": nir.Output(output_type={"output": np.array([1])}),
    }
    graph = nir.NIRGraph(nodes=nodes, edges=[("input", "neuron"), ("neuron", "output")])
    run = run_network(network_of(graph, dt), trace.current[..., None])
    spikes = run.output[..., 0].astype(bool) & trace.valid
    expected = trace.spikes.astype(bool)
    return Disagreement(
        positions=int(trace.length.sum()),
        spikes=int(expected.sum()),
        approximate_spikes=int(spikes.sum()),
        differing=int((spikes != expected).sum()),
        f1=boundary_scores(spikes, expected, trace.valid).f1,
    )
