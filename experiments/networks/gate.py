"""Whether a gate that learns helps a network that has to forget on cue: gate against hard, soft, no reset, and
snnTorch's Leaky.

    python experiments/networks/gate.py --json experiments/results/networks/gate.json

Evidence comes in pulses on a few channels, and a cue on one more line says that what came before is void. At the end
the network names the channel that pulsed most often since the last cue. Earlier stretches favour another channel, so
a network that cannot forget is wrong, and one that forgets at every spike loses count. All systems have one hidden
layer of as many neurons; systems with a gate have its weights too, and the one named "fixed gate" does not train them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speak_neuro.common.command import run_command
from speak_neuro.common.files import check_writable, write_json
from speak_neuro.common.provenance import result_record
from speak_neuro.errors import SpeakError

SYSTEMS = ("gate", "fixed gate", "hard", "soft", "none", "Leaky")
CHANNELS, STEPS, LAST = 4, 60, 8


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="gate.py", description=(__doc__ or "").split("\n\n")[0])
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

    if arguments.json is not None:
        check_writable(arguments.json)
    for name in ("train_steps", "neurons"):
        if getattr(arguments, name) < 1:
            raise SpeakError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; allowed: 1 or more")
    torch.set_num_threads(1)
    rows = []
    for system in arguments.systems:
        runs = [train(system, seed, arguments) for seed in arguments.seeds]
        accuracies = [run["accuracy"] for run in runs]
        spread = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
        rows.append({"system": system, "runs": runs, "accuracy": statistics.mean(accuracies), "deviation": spread})
        first = runs[0]
        gate = f"{first['open_at_cue']:.0%} / {first['open_else']:.0%}" if first["open_at_cue"] is not None else ""
        print(
            f"{system:11s} {rows[-1]['accuracy']:.1%} ± {spread:.1%}   spikes a step {first['rate']:.3f}   {gate}",
            flush=True,
        )
    if arguments.json is not None:
        metrics = {"chance": 1 / CHANNELS, "settings": settings(arguments), "systems": rows}
        write_json(arguments.json, result_record(arguments.command_line, metrics))
    return 0


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the runs had in common."""
    names = ("seeds", "train_steps", "neurons", "decay", "rate")
    return {name: getattr(arguments, name) for name in names} | {
        "channels": CHANNELS,
        "steps": STEPS,
        "read_last": LAST,
    }


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


def build(system: str, neurons: int, decay: float) -> Any:
    """The hidden layer's weights, its neurons, and the readout's weights."""
    import snntorch
    from torch import nn

    from speak_neuro.neuron.module import GatedLeaky

    gated = system in ("gate", "fixed gate")
    weights = nn.Linear(CHANNELS + 1, 2 * neurons if gated else neurons)
    if system == "Leaky":
        layer: Any = snntorch.Leaky(beta=decay)
    elif gated:
        layer = GatedLeaky(
            neurons, decay=decay, output="spikes", learn_gate="straight-through" if system == "gate" else "own-loss"
        )
    else:
        layer = GatedLeaky(neurons, decay=decay, mode=system, output="spikes")  # type: ignore[arg-type]
    return nn.ModuleList([weights, layer, nn.Linear(neurons, CHANNELS)])


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


def train(system: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run: accuracy on 4,096 sequences that training does not see."""
    import torch

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    net = build(system, arguments.neurons, arguments.decay)
    optimiser = torch.optim.Adam(net.parameters(), arguments.rate)
    started = time.process_time()
    for _ in range(arguments.train_steps):
        x, label = sequences(64, generator)
        scores = net[2](hidden(net, x)[:, -LAST:].mean(1))
        loss = torch.nn.functional.cross_entropy(scores, label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        x, label = sequences(4096, torch.Generator().manual_seed(7))
        spikes = hidden(net, x)
        found = net[2](spikes[:, -LAST:].mean(1)).argmax(1)
        opened: tuple[float | None, float | None] = (None, None)
        if system in ("gate", "fixed gate"):
            logit = net[1].split(net[0](x))[1]
            cue = x[..., -1] > 0
            opened = (float((logit > 0)[cue].float().mean()), float((logit > 0)[~cue].float().mean()))
    return {
        "seed": seed,
        "accuracy": float((found == label).float().mean()),
        "loss": float(loss.detach()),
        "rate": float(spikes.mean()),
        "open_at_cue": opened[0],
        "open_else": opened[1],
        "seconds": round(time.process_time() - started, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
