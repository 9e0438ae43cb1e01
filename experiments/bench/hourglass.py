"""Time of a training step: the package's Hourglass model against the same model written plainly.

    python experiments/bench/hourglass.py --preset tiny text8 --json hourglass.json

Both models hold the same weights and see the same text. Before anything is timed, their logits and gradients are
compared without dropout; the command stops with exit code 1 when they differ. One step is forward, cross-entropy,
backward, gradient clip, Adam. The two take turns in one process, and the median of each is reported, in CPU time of the
process next to wall time. Boundaries are drawn at a rate of 0.2 (5 characters to a token).

On glibc the allocator decides a good part of the time of both: results name its environment variables when they are
set.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.common.timing import in_turns
from speak_neuro.errors import ParityError

ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "LD_PRELOAD")
TOLERANCE = 1e-4
VOCABULARY = 27


@dataclass(frozen=True)
class Preset:
    """Sizes of the model and of its batch."""

    sizes: dict[str, int]
    rows: int
    length: int


PRESETS = {
    "tiny": Preset({"width": 128, "heads": 4, "inner": 512, "shortened_layers": 2}, 8, 512),
    "small": Preset({"width": 256, "heads": 4, "inner": 1024, "shortened_layers": 4}, 4, 512),
    "text8": Preset({}, 1, 2048),
    "vanilla": Preset({"pre_layers": 12, "shortened_layers": 0, "post_layers": 0}, 1, 2048),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench_hourglass.py", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    parser.add_argument("--preset", nargs="+", choices=sorted(PRESETS), default=["tiny"], help="sizes to measure")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each model (default 5)")
    parser.add_argument("--device", default="cpu", help="torch device (default cpu)")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own)")
    parser.add_argument("--bf16", action="store_true", help="time both under bfloat16 autocast (parity stays float32)")
    parser.add_argument("--backend", default="auto", help="attention backend of the package's model (default auto)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    return run_command(parser, measure, argv)


def measure(arguments: argparse.Namespace) -> int:
    import torch

    from speak_neuro.common.device import choose_device, describe_device

    at_least(arguments, 1, "repeats")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    metrics: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "bf16": arguments.bf16,
        "backend": arguments.backend,
        "allocator": {name: os.environ[name] for name in ALLOCATOR if name in os.environ},
        "presets": {},
    }
    print(f"{'preset':9}{'model':10}{'CPU ms':>10}{'wall ms':>10}{'ratio':>8}")
    for name in arguments.preset:
        result = measure_preset(PRESETS[name], device, arguments)
        metrics["presets"][name] = result
        print(f"{name:9}{'plain':10}{result['plain_cpu_ms']:10.1f}{result['plain_wall_ms']:10.1f}")
        times = f"{result['ours_cpu_ms']:10.1f}{result['ours_wall_ms']:10.1f}{result['ratio']:8.2f}"
        print(f"{name:9}{'package':10}{times}", flush=True)
    write_result(arguments, metrics, describe_device(device))
    return 0


def measure_preset(preset: Preset, device: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from speak_neuro.common.device import wait
    from speak_neuro.model.hourglass import Hourglass, HourglassConfig
    from speak_neuro.model.plain import PlainHourglass

    generator = torch.Generator().manual_seed(0)
    text = torch.randint(0, VOCABULARY, (preset.rows, preset.length + 1), generator=generator).to(device)
    boundaries = (torch.rand(preset.rows, preset.length, generator=generator) < 0.2).to(device)
    ids, targets = text[:, :-1], text[:, 1:]

    def build(dropout: float) -> tuple[Any, Any]:
        torch.manual_seed(1111)
        config = HourglassConfig(vocabulary=VOCABULARY, dropout=dropout, attention_dropout=dropout, **preset.sizes)
        ours = Hourglass(config, arguments.backend).to(device)
        plain = PlainHourglass(config).to(device)
        plain.load_state_dict(ours.state_dict())
        return ours, plain

    def loss_of(model: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(ids, boundaries).float().flatten(0, 1), targets.flatten())

    ours, plain = build(dropout=0.0)
    difference = parity(loss_of, ours, plain, ids, boundaries)
    ours, plain = build(dropout=0.1)

    def step_of(model: Any) -> Callable[[], None]:
        optimiser = torch.optim.Adam(model.parameters(), lr=2.5e-4, fused=device.type == "cuda")

        def step() -> None:
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bf16):
                loss = loss_of(model)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimiser.step()
            wait(device)

        return step

    steps = {"plain": step_of(plain), "ours": step_of(ours)}
    result: dict[str, Any] = {"rows": preset.rows, "length": preset.length, "largest_difference": difference}
    for name, spent in in_turns(steps, arguments.repeats).items():
        result[f"{name}_cpu_ms"], result[f"{name}_wall_ms"] = 1e3 * spent.cpu, 1e3 * spent.wall
    clock = "cpu_ms" if device.type == "cpu" else "wall_ms"
    result["ratio"] = result[f"plain_{clock}"] / result[f"ours_{clock}"]
    result["boundaries"] = int(boundaries.sum())
    return result


def parity(loss_of: Callable[[Any], Any], ours: Any, plain: Any, ids: Any, boundaries: Any) -> dict[str, float]:
    """Largest differences in logits, and in any gradient relative to that gradient's largest entry."""
    import torch

    with torch.no_grad():
        logits = (ours(ids, boundaries) - plain(ids, boundaries)).abs().max().item()
    gradients = [torch.autograd.grad(loss_of(model), list(model.parameters())) for model in (ours, plain)]
    # A gradient that is zero in exact arithmetic (the key's bias moves all scores of a query alike) is all rounding:
    # differences are counted relative to nothing smaller than 1e-3 of the largest gradient.
    floor = 1e-3 * max(g.abs().max().item() for g in gradients[1])
    relative = max(
        (one - two).abs().max().item() / max(two.abs().max().item(), floor) for one, two in zip(*gradients, strict=True)
    )
    if not (logits <= TOLERANCE and relative <= 10 * TOLERANCE):
        raise ParityError(
            f"the models differ: logits by {logits:.1e}, gradients by {relative:.1e} of their size; nothing was timed"
        )
    return {"logits": logits, "gradients": relative}


if __name__ == "__main__":
    raise SystemExit(main())
