"""Networks of others, built anew, through export, NIR and Lava: what differs, layer by layer.

    python experiments/networks/models.py --json experiments/results/networks/models.json

tutorial-5      snnTorch's tutorial 5: 784-1000-10, Leaky with beta 0.95, 25 steps of one picture
tutorial-6      snnTorch's tutorial 6: two convolutions with Leaky (beta 0.5), pooled, and ten Leaky; average for
                maximum pooling, which NIR does not have
braille         after the NIR paper's recurrent network for braille: 12 channels, 38 recurrent neurons and a layer of
                classes, all with a synaptic current
keywords        Linear, 32 gated neurons, Linear, Leaky, Linear; not trained

The first three are trained on real data (`trained.py`): handwritten digits for the tutorials', spoken vowels for the
braille network, whose own recordings no package brings; nine speakers for its seven letters. The four sequences are
of the test part. The tutorials' reset (subtract, a step later) is refused, and `zero` at once stands for it.
--train-steps 0 leaves the weights as torch starts them, scaled so that every layer spikes, and draws random inputs.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trained

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError

MODELS = ("tutorial-5", "tutorial-6", "braille", "keywords")
RATES = {"tutorial-5": 5e-4, "tutorial-6": 2e-3, "braille": 3e-3}
"""Adam's learning rate."""
TRAIN_STEPS = {"tutorial-5": 60, "tutorial-6": 60, "braille": 300}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="models.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="(default: all)")
    parser.add_argument("--batch", type=int, default=4, help="sequences (default: 4)")
    parser.add_argument("--train-steps", type=int, help=f"of 32 sequences; 0 for none (default: {TRAIN_STEPS})")
    parser.add_argument("--no-lava", action="store_true", help="without Lava: export, numpy and readers only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    return run_command(parser, table, argv)


def table(arguments: argparse.Namespace) -> int:
    """Every model through every step."""
    if arguments.batch < 1:
        raise SpeakError(f"--batch is {arguments.batch}; allowed: 1 or more")
    if arguments.train_steps is not None and arguments.train_steps < 0:
        raise SpeakError(f"--train-steps is {arguments.train_steps}; allowed: 0 or more")
    warnings.simplefilter("ignore")
    found = {name: one(name, arguments) for name in arguments.models}
    write_result(arguments, {"models": found})
    return 0


def one(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One model: refusal of the original reset, then the differences at every step of the way."""
    import torch

    from speak_neuro.export import reference_of, to_nir
    from speak_neuro.export.graphs.network import network_of
    from speak_neuro.export.graphs.network_run import run_network
    from speak_neuro.sim import verify

    torch.manual_seed(0)
    net, sample = build(name, "zero", arguments.batch)
    found: dict[str, Any] = {"refused": ""}
    if name != "keywords":
        try:
            to_nir(build(name, "subtract", arguments.batch)[0], sample)
        except SpeakError as error:
            found["refused"] = str(error)
        steps = TRAIN_STEPS[name] if arguments.train_steps is None else arguments.train_steps
        if steps:
            train, test = trained.speakers() if name == "braille" else trained.digits(flat=name == "tutorial-5")
            before = trained.accuracy(net, test)
            trained.train(net, train, steps, RATES[name])
            found["train_steps"] = steps
            found["accuracy"] = {"before training": before, "after": trained.accuracy(net, test)}
            sample = test.x[: arguments.batch].contiguous()
    graph, reference = to_nir(net, sample), reference_of(net, sample)
    own = run_network(network_of(graph), sample.numpy()).layers
    found["layers"] = {
        layer: {
            "neurons": int(run.spikes.shape[2]),
            "spikes": int(run.spikes.sum()),
            "numpy": int((own[layer].spikes != run.spikes).sum()),
        }
        for layer, run in reference.items()
    }
    print(f"{name}: {len(graph.nodes)} nodes; {found['refused'] or 'no reset of its own'}; {found.get('accuracy', '')}")
    if not arguments.no_lava:
        result = verify(graph, sample.numpy(), reference, levels=("neuron", "network", "fixed"))
        found["passed"] = result.passed
        found["reference"] = result.report["reference"]
        for level, part in result.report["levels"].items():
            for row in part["layers"]:
                into = found["layers"][row["name"]]
                into[level] = {key: row[key] for key in ("spike_mismatches", "membrane_mismatches")}
                if level == "fixed":
                    into[level]["as_float"] = row["float_agreement"]
    found["readers"] = readers(graph, sample, net)
    for layer, row in found["layers"].items():
        print(f"  {layer}: {row}")
    print(f"  outputs of readers, largest difference: {found['readers']}")
    return found


def readers(graph: Any, sample: Any, net: Any) -> dict[str, float | str]:
    """The largest difference of each reader's output to the module's."""
    import torch

    from speak_neuro.export import from_nir
    from speak_neuro.export.modules.record import record_run
    from speak_neuro.export.readers import norse, sinabs

    expected = record_run(net, sample).output
    found: dict[str, float | str] = {}
    for reader, module in (("from_nir", from_nir), ("norse", norse.from_nir)):
        try:
            stepping, state, outs = module(graph), None, []
            with torch.no_grad():
                for t in range(sample.shape[1]):
                    out, state = stepping(sample[:, t], state)
                    outs.append(out)
            found[reader] = float(np.abs(torch.stack(outs, 1).numpy() - expected).max())
        except SpeakError as error:
            found[reader] = str(error)
    try:
        with torch.no_grad():
            out = sinabs.from_nir(graph, batch_size=len(sample))(sample.flatten(0, 1))
        out = out[0] if isinstance(out, tuple) else out
        found["sinabs"] = float(np.abs(out.numpy().reshape(expected.shape) - expected).max())
    except SpeakError as error:
        found["sinabs"] = str(error)
    return found


def build(name: str, reset: str, batch: int) -> tuple[Any, Any]:
    """The module and its sample (B, T, ...)."""
    import snntorch
    import torch
    from torch import nn

    from speak_neuro.neuron.module import GatedLeakyCell

    options: dict[str, Any] = {"reset_mechanism": reset, "init_hidden": True}
    if reset == "zero":
        options["reset_delay"] = False
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Any:
        return torch.rand(batch, *shape, generator=generator)

    if name == "tutorial-5":
        net = nn.Sequential(
            nn.Linear(784, 1000), snntorch.Leaky(0.95, **options), nn.Linear(1000, 10), snntorch.Leaky(0.95, **options)
        )
        return net, random(1, 784).expand(batch, 25, 784).contiguous()
    if name == "tutorial-6":
        layers = [nn.Conv2d(1, 12, 5), nn.AvgPool2d(2), snntorch.Leaky(0.5, **options)]
        layers += [nn.Conv2d(12, 64, 5), nn.AvgPool2d(2), snntorch.Leaky(0.5, **options)]
        layers += [nn.Flatten(), nn.Linear(64 * 4 * 4, 10), snntorch.Leaky(0.5, **options)]
        net = nn.Sequential(*layers)
        with torch.no_grad():
            for layer, factor in ((net[0], 5.0), (net[3], 4.0), (net[7], 3.0)):
                layer.weight.mul_(factor)
        return net, random(1, 1, 28, 28).expand(batch, 25, 1, 28, 28).contiguous()
    if name == "braille":
        return braille(options), (random(100, 12) < 0.15).float() * 3
    net = nn.Sequential(
        nn.Linear(16, 64),
        GatedLeakyCell(32, decay=0.9, init_hidden=True, learn_gate="own-loss"),
        nn.Linear(32, 32),
        snntorch.Leaky(0.9, init_hidden=True, reset_mechanism="zero", reset_delay=False),
        nn.Linear(32, 4),
    )
    return net, random(50, 16) * 6 - 2


def braille(options: dict[str, Any]) -> Any:
    """The recurrent network; its spikes of the step before go through weights without bias, as NIR's edges do."""
    import snntorch
    import torch
    from torch import nn

    neurons = {**options, "init_hidden": False}

    class Braille(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.back = nn.Linear(12, 38), nn.Linear(38, 38, bias=False)
            self.lif1 = snntorch.Synaptic(alpha=0.6, beta=0.85, **neurons)
            self.fc2 = nn.Linear(38, 9)
            self.lif2 = snntorch.Synaptic(alpha=0.6, beta=0.85, **neurons)
            with torch.no_grad():
                self.fc2.weight.mul_(3)

        def forward(
            self, x: Any, spk: Any = None, syn1: Any = None, mem1: Any = None, syn2: Any = None, mem2: Any = None
        ) -> Any:
            if spk is None:
                spk = torch.zeros(len(x), 38)
            spk, syn1, mem1 = self.lif1(self.fc1(x) + self.back(spk), syn1, mem1)
            out, syn2, mem2 = self.lif2(self.fc2(spk), syn2, mem2)
            return out, spk, syn1, mem1, syn2, mem2

    return Braille()


if __name__ == "__main__":
    sys.exit(main())
