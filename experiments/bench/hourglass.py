"""Time of a training step of the language model: the package's Hourglass against the same model written plainly.

For step.py. Both models hold the same weights and see the same text. Before anything is timed, their logits and
gradients are compared without dropout. One step is forward, cross-entropy, backward, gradient clip, Adam. The two take
turns in one process, and the median of each is reported, in CPU time of the process next to wall time. Boundaries are
drawn at a rate of 0.2 (5 characters to a token).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from speak_neuro.common.timing import in_turns
from speak_neuro.errors import ParityError

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


def measure_preset(preset: Preset, device: Any, repeats: int) -> dict[str, Any]:
    """Milliseconds of both, and how many times as long the plain one takes; ParityError where they differ."""
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
        ours = Hourglass(config).to(device)
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
            loss_of(model).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimiser.step()
            wait(device)

        return step

    steps = {"plain": step_of(plain), "ours": step_of(ours)}
    result: dict[str, Any] = {"rows": preset.rows, "length": preset.length, "largest_difference": difference}
    for name, spent in in_turns(steps, repeats).items():
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
