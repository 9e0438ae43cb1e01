"""A simulation worker with networks of its own: faults on purpose, and probes of Lava's timing and stock neuron.

Run as `python -m faulty_worker` with this folder on PYTHONPATH, in place of speak_neuro.sim.child.worker.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from lava.proc.dense.models import PyDelayDenseModelFloat
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.lif.models import PyLifModelFloat
from lava.proc.lif.process import LIF

from speak_neuro.errors import SpeakError
from speak_neuro.sim.child import guard, network, worker
from speak_neuro.sim.job import CONSTANTS
from speak_neuro.sim.processes import base
from speak_neuro.sim.processes.array_source.process import ArraySource
from speak_neuro.sim.processes.neuron_layer.process import NeuronLayer
from speak_neuro.sim.processes.recorder.process import Recorder

MODELS = {**network.MODELS, DelayDense: PyDelayDenseModelFloat, LIF: PyLifModelFloat}


class Faulty(base.Process):
    """Sends ones until its third step, then does what `fault` says."""

    def __init__(self, *, fault: str) -> None:
        super().__init__(fault=fault)
        self.s_out = base.OutPort(shape=(4,))


@base.float32(Faulty)
class FaultyModel(base.Model):
    s_out: Any = base.sends(np.float32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        if proc_params["fault"] == "build":
            raise KeyError("the constants of the model")
        if proc_params["fault"] == "build-kill":
            os.kill(os.getpid(), signal.SIGKILL)

    def run_spk(self) -> None:
        fault = self.proc_params["fault"] if self.time_step == 3 else ""
        if fault.startswith("raise"):
            raise ZeroDivisionError("on purpose at step 3")
        if fault == "exit":
            os._exit(7)
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "stall":
            time.sleep(60)
        self.s_out.send(np.ones(5 if fault == "shape" else 4, dtype=np.float32))


def run(
    processes: list[Any], steps: int, deadline: float, on_step: Callable[[int], None], counter: np.ndarray | None = None
) -> None:
    models = {process: {**MODELS, Faulty: FaultyModel}[type(process)] for process in processes}
    guard.run_guarded(
        processes[0],
        models,
        steps,
        deadline=deadline,
        on_poll=lambda: on_step(int(counter[0]) if counter is not None else 0),
    )


def record(port: Any, steps: int, dtype: Any = np.float32) -> tuple[Recorder, np.ndarray]:
    data = network.shared((steps, port.shape[0]), dtype)
    recorder = Recorder(data=data, counter=network.shared((1,), np.int64))
    port.connect(recorder.a_in)
    return recorder, data


def faulty(fault: str, deadline: float, on_step: Callable[[int], None]) -> None:
    if fault == "deaf":  # a worker that neither watches the clock nor ends when asked to
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    process = Faulty(fault=fault)
    processes: list[Any] = [process]
    counter = None
    if fault != "raise-alone":
        recorder, _ = record(process.s_out, 50)
        counter = recorder.proc_params["counter"]
        processes.append(recorder)
    run(processes, 10, deadline, on_step, counter)


def measure_latency(deadline: float, on_step: Callable[[int], None]) -> dict[str, np.ndarray]:
    """Latency as computed from the graph and as an impulse in step 2 shows it, for several paths."""
    steps = 10
    impulse = np.zeros((steps, 1), dtype=np.float32)
    impulse[1] = 1

    def dense() -> Dense:
        return Dense(weights=np.eye(1), num_message_bits=24)

    def delayed(steps: int) -> DelayDense:
        return DelayDense(weights=np.eye(1), delays=np.full((1, 1), steps), num_message_bits=24)

    computed, measured = [], []
    for path in ([], [dense()], [dense(), dense()], [delayed(0)], [delayed(1)], [dense(), delayed(3)]):
        source = ArraySource(data=impulse)
        port = source.s_out
        for hop in path:
            port.connect(hop.s_in)
            port = hop.a_out
        recorder, data = record(port, steps)
        computed.append(network.latency(recorder.a_in))
        run([source, *path, recorder], steps, deadline, on_step)
        measured.append(int(np.flatnonzero(data[:, 0])[0]) - 1)
    return {"computed": np.array(computed), "measured": np.array(measured)}


def gated(lanes: int) -> NeuronLayer:
    """Neurons with the constants 1, reset to 0."""
    return network.gated_neurons(lanes, dict(zip(CONSTANTS, (1, 1, 1, 0, 0.8, 0), strict=True)))


def refusals() -> dict[str, np.ndarray]:
    """What the latency check says about wrong graphs."""
    messages = []

    def complain(build: Callable[[NeuronLayer, ArraySource], None]) -> None:
        neuron, source = gated(1), ArraySource(data=np.zeros((3, 1), dtype=np.float32))
        build(neuron, source)
        try:
            network.aligned_latency(neuron)
            messages.append("")
        except SpeakError as error:
            messages.append(str(error))

    def hop(source: Any, target: Any, *, delays: Any = None, weights: Any = None) -> None:
        weights = np.eye(1) if weights is None else weights
        dense = Dense(weights=weights) if delays is None else DelayDense(weights=weights, delays=delays)
        source.connect(dense.s_in)
        dense.a_out.connect(target)

    def misaligned(neuron: NeuronLayer, source: ArraySource) -> None:
        hop(source.s_out, neuron.x_in)
        source.s_out.connect(neuron.g_in)

    def unconnected(neuron: NeuronLayer, source: ArraySource) -> None:
        source.s_out.connect(neuron.x_in)

    def unequal(neuron: NeuronLayer, source: ArraySource) -> None:
        source.s_out.connect(neuron.g_in)
        source.s_out.connect(neuron.x_in)
        hop(source.s_out, neuron.x_in)

    def delays(neuron: NeuronLayer, source: ArraySource) -> None:
        two = ArraySource(data=np.zeros((3, 2), dtype=np.float32))
        hop(two.s_out, neuron.x_in, delays=np.array([[0, 1]]), weights=np.ones((1, 2)))
        hop(source.s_out, neuron.g_in)

    for build in (misaligned, unconnected, unequal, delays):
        complain(build)
    return {"messages": np.array(messages)}


def oracle(job: Any, deadline: float, on_step: Callable[[int], None]) -> dict[str, np.ndarray]:
    """An open gate makes the neuron Lava's stock LIF without a synaptic state, whose threshold lies one ulp lower."""
    current = job["current"]
    steps, lanes = current.shape
    source = ArraySource(data=current)
    gate = ArraySource(data=np.ones_like(current))
    ours = gated(lanes)
    shifted = LIF(shape=(lanes,), du=1, dv=0, vth=np.nextafter(np.float64(1), 0))
    unshifted = LIF(shape=(lanes,), du=1, dv=0, vth=1.0)
    source.s_out.connect(ours.x_in)
    gate.s_out.connect(ours.g_in)
    processes: list[Any] = [ours, source, gate, shifted, unshifted]
    result = {}
    for name, neuron in (("ours", ours), ("shifted", shifted), ("unshifted", unshifted)):
        if neuron is not ours:
            source.s_out.connect(neuron.a_in)
        recorder, result[name] = record(neuron.s_out, steps)
        processes.append(recorder)
    run(processes, steps, deadline, on_step)
    return result


def simulate(job: Any, deadline: float, on_step: Callable[[int], None]) -> dict[str, np.ndarray]:
    task = str(job["task"])
    if task == "latency":
        return {**measure_latency(deadline, on_step), **refusals()}
    if task == "oracle":
        return oracle(job, deadline, on_step)
    if task == "noise":
        print("not an event")
        os.write(1, b"nor this\n")
        task = "none"
    faulty(task, deadline, on_step)
    return {"done": np.ones(1)}


if __name__ == "__main__":
    sys.exit(worker.main(simulate=simulate))
