"""Whether a gate that learns helps a network: gate against hard, soft, no reset, and snnTorch's Leaky.

    python experiments/networks/gate.py --json experiments/results/networks/gate.json
    python experiments/networks/gate.py --task vowels --json experiments/results/networks/gate_vowels.json

cue, made for it: evidence comes in pulses on a few channels, and a cue on one more line says that what came before is
void. At the end the network names the channel that pulsed most often since the last cue. Earlier stretches favour
another channel, so a network that cannot forget is wrong, and one that forgets at every spike loses count.

vowels, real: who of nine men says /ae/, from 7 to 29 frames of speech (`vowels.py`).

All systems have one hidden layer of as many neurons, whose spikes are averaged over time; systems with a gate have its
weights too, and the one named "fixed gate" does not train them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import vowels

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.provenance import write_result

SYSTEMS = ("gate", "fixed gate", "hard", "soft", "none", "Leaky")
CHANNELS, STEPS, LAST = 4, 60, 8


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gate.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--task", choices=tuple(TASKS), default="cue", help="(default: cue)")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="(default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--train-steps", type=int, default=600, help="of 64 sequences (default: 600)")
    parser.add_argument("--neurons", type=int, default=16, help="in the hidden layer (default: 16)")
    parser.add_argument("--decay", type=float, default=1.0, help="of every neuron (default: 1)")
    parser.add_argument("--rate", type=float, default=0.003, help="Adam's learning rate (default: 0.003)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    return run_command(parser, experiment, argv)


def experiment(arguments: argparse.Namespace) -> int:
    """Train every system with every seed and print the table."""
    import torch

    at_least(arguments, 1, "train_steps", "neurons")
    torch.set_num_threads(1)
    task, rows = TASKS[arguments.task](), []
    for system in arguments.systems:
        runs = [train(system, seed, task, arguments) for seed in arguments.seeds]
        accuracies = [run["accuracy"] for run in runs]
        spread = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
        rows.append({"system": system, "runs": runs, "accuracy": statistics.mean(accuracies), "deviation": spread})
        first = runs[0]
        gate = "   ".join(f"{name} {share:.0%}" for name, share in first["open"].items())
        print(
            f"{system:11s} {rows[-1]['accuracy']:.1%} ± {spread:.1%}   spikes a step {first['rate']:.3f}   {gate}",
            flush=True,
        )
    metrics = {"task": arguments.task, "chance": 1 / task.classes, "settings": settings(arguments), "systems": rows}
    write_result(arguments, metrics)
    return 0


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the runs had in common."""
    names = ("seeds", "train_steps", "neurons", "decay", "rate")
    cue = {"channels": CHANNELS, "steps": STEPS, "read_last": LAST} if arguments.task == "cue" else {}
    return {name: getattr(arguments, name) for name in names} | cue


class Batch(NamedTuple):
    """Sequences and what they mean."""

    x: Any
    """(B, T, inputs)"""
    weight: Any
    """(B, T) how much each step counts in the average that is read out; sums to 1."""
    label: Any
    """(B,)"""
    places: dict[str, Any]
    """Masks (B, T) of the steps at which the gate is looked at."""


class Cue:
    """The task that was made for a gate."""

    inputs, classes = CHANNELS + 1, CHANNELS

    def draw(self, generator: Any) -> Batch:
        """A batch to train on."""
        return self._batch(64, generator)

    def test(self) -> Batch:
        """4,096 sequences that training does not see."""
        import torch

        return self._batch(4096, torch.Generator().manual_seed(7))

    def _batch(self, count: int, generator: Any) -> Batch:
        import torch

        x, label = sequences(count, generator)
        weight = torch.zeros(x.shape[:2])
        weight[:, -LAST:] = 1 / LAST
        cue = x[..., -1] > 0
        return Batch(x, weight, label, {"at cue": cue, "else": ~cue})


class Vowels:
    """Speakers of spoken vowels."""

    inputs, classes = vowels.COEFFICIENTS, vowels.SPEAKERS

    def __init__(self) -> None:
        self._train, self._test = vowels.load()

    def draw(self, generator: Any) -> Batch:
        """64 of the 270 utterances to train on."""
        import torch

        chosen = torch.randint(len(self._train.frames), (64,), generator=generator)
        return self._batch(vowels.Utterances(*(part[chosen] for part in self._train)))

    def test(self) -> Batch:
        """The 370 utterances of the test part."""
        return self._batch(self._test)

    def _batch(self, utterances: vowels.Utterances) -> Batch:
        import torch

        inside = torch.arange(utterances.frames.shape[1]) < utterances.lengths[:, None]
        weight = inside / utterances.lengths[:, None]
        return Batch(utterances.frames, weight, utterances.speakers, {"speech": inside})


TASKS: dict[str, type[Cue] | type[Vowels]] = {"cue": Cue, "vowels": Vowels}


def sequences(count: int, generator: Any) -> tuple[Any, Any]:
    """Pulses and cues (count, STEPS, CHANNELS + 1), and the channel that pulsed most since the last cue."""
    import torch

    def below(high: int, shape: tuple[int, ...]) -> Any:
        return torch.randint(high, shape, generator=generator)

    last = 12 + below(STEPS - 34, (count,))
    cues = torch.zeros(count, STEPS)
    cues[torch.arange(count), last] = 1
    early = 2 + below(8, (count,))
    cues[torch.arange(count), early] = 1
    step = torch.arange(STEPS)
    favoured = below(CHANNELS, (count, 3))
    favoured[:, 1] = (
        favoured[:, 2] + 1 + below(CHANNELS - 1, (count,))
    ) % CHANNELS  # what came before points elsewhere
    stretch = (step[None] > early[:, None]).long() + (step[None] > last[:, None]).long()
    current = torch.gather(favoured, 1, stretch)
    chance = torch.full((count, STEPS, CHANNELS), 0.12)
    chance.scatter_(2, current[..., None], 0.45)
    pulses = (torch.rand(chance.shape, generator=generator) < chance).float()
    return torch.cat((pulses, cues[..., None]), dim=2), favoured[:, 2]


def build(system: str, neurons: int, decay: float, inputs: int, classes: int) -> Any:
    """The hidden layer's weights, its neurons, and the readout's weights."""
    import snntorch
    from torch import nn

    from speak_neuro.neuron.module import GatedLeaky

    gated = system in ("gate", "fixed gate")
    weights = nn.Linear(inputs, 2 * neurons if gated else neurons)
    if system == "Leaky":
        layer: Any = snntorch.Leaky(beta=decay)
    elif gated:
        layer = GatedLeaky(
            neurons, decay=decay, output="spikes", learn_gate="straight-through" if system == "gate" else "own-loss"
        )
    else:
        layer = GatedLeaky(neurons, decay=decay, mode=system, output="spikes")  # type: ignore[arg-type]
    return nn.ModuleList([weights, layer, nn.Linear(neurons, classes)])


def hidden(net: Any, x: Any) -> Any:
    """The hidden layer's spikes (B, T, N)."""
    import torch

    weights, layer, _ = net
    current = weights(x)
    if type(layer).__name__ != "Leaky":
        return layer(current)
    mem, spikes = torch.zeros_like(current[:, 0]), []
    for t in range(current.shape[1]):
        spk, mem = layer(current[:, t], mem)
        spikes.append(spk)
    return torch.stack(spikes, 1)


def train(system: str, seed: int, task: Cue | Vowels, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run: accuracy on what training does not see."""
    import torch

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    net = build(system, arguments.neurons, arguments.decay, task.inputs, task.classes)
    optimiser = torch.optim.Adam(net.parameters(), arguments.rate)
    started = time.process_time()
    for _ in range(arguments.train_steps):
        batch = task.draw(generator)
        scores = net[2]((hidden(net, batch.x) * batch.weight[..., None]).sum(1))
        loss = torch.nn.functional.cross_entropy(scores, batch.label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        batch = task.test()
        spikes = hidden(net, batch.x)
        found = net[2]((spikes * batch.weight[..., None]).sum(1)).argmax(1)
        opened = {}
        if system in ("gate", "fixed gate"):
            wide = net[1].split(net[0](batch.x))[1] > 0
            opened = {name: float(wide[mask].float().mean()) for name, mask in batch.places.items()}
    return {
        "seed": seed,
        "accuracy": float((found == batch.label).float().mean()),
        "loss": float(loss.detach()),
        "rate": float(spikes.mean()),
        "open": opened,
        "seconds": round(time.process_time() - started, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
