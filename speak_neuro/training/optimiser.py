"""The optimisers of a run and their learning rates.

    muon    torch's Muon for the matrices of the language model's layers, Adam for everything else
    adam    Adam for everything, as Dynamic Token Pooling trains

Muon's update of a matrix is its averaged gradient with all singular values set to about one, so the size of a gradient
says nothing. Adam keeps the embedding, the output layer, biases, norms, and all of the tokenizer. The rates are peaks;
`schedule` is their factor at a step:

    warm-up       (step + 1) / warmup
    cosine        from 1 to 0 over the steps that remain
    linear        1, then from 1 to 0 over the last `cooldown` of the steps that remain
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from speak_neuro.common.tensors import optimiser_tensors, restore_optimiser
from speak_neuro.config import TrainingConfig
from speak_neuro.model.hourglass import HourglassLayer
from speak_neuro.systems.system import System


def schedule(step: int, config: TrainingConfig) -> float:
    """Factor on the peak learning rates at a step, counted from 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    progress = min((step - config.warmup) / max(config.steps - config.warmup, 1), 1.0)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return min(1.0, (1 - progress) / config.cooldown)


def tokenizer_parameters(system: System) -> Iterator[nn.Parameter]:
    """Parameters of the tokenizer's group: encoder, readouts and learned mixes, or those of another segmenter."""
    yield from (p for p in system.boundary_module.parameters() if p.requires_grad)
    if system.is_speak:
        yield from (p for p in system.mixes.parameters() if p.requires_grad)


def layer_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Every weight matrix inside the language model's layers."""
    layers = [module for module in model.modules() if isinstance(module, HourglassLayer)]
    return [p for layer in layers for p in layer.parameters() if p.ndim == 2]


class RunOptimiser:
    """One run's optimisers behind one interface."""

    def __init__(self, system: System, config: TrainingConfig) -> None:
        self.config = config
        device = next(system.parameters()).device
        model = list(system.language_model.parameters())
        self.muon: torch.optim.Muon | None = None
        # Systems other than SPEAK have one rate for all under adam, as DTP.
        own_rate = config.learning_rate
        if system.is_speak or config.optimiser == "muon":
            own_rate = config.tokenizer_learning_rate
        if config.optimiser == "muon" and (matrices := layer_matrices(system.language_model)):
            self.muon = torch.optim.Muon(matrices, lr=config.matrix_learning_rate, weight_decay=0.0)
            taken = {id(p) for p in matrices}
            model = [p for p in model if id(p) not in taken]
        groups: list[dict[str, Any]] = [{"params": model}]
        self._peaks = [config.learning_rate]
        if own := list(tokenizer_parameters(system)):
            groups.append({"params": own})
            self._peaks.append(own_rate)
        fused = device.type in ("cpu", "cuda")
        self.adam = torch.optim.Adam(groups, lr=config.learning_rate, betas=(0.9, config.beta2), fused=fused)

    @property
    def learning_rate(self) -> float:
        """Adam's present rate for the language model."""
        return float(self.adam.param_groups[0]["lr"])

    def set_rates(self, step: int) -> None:
        """The learning rates of a step."""
        factor = schedule(step, self.config)
        for group, peak in zip(self.adam.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        if self.muon is not None:
            for group in self.muon.param_groups:
                group["lr"] = self.config.matrix_learning_rate * factor

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for optimiser in self._all():
            optimiser.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Update all parameters that have a gradient."""
        for optimiser in self._all():
            optimiser.step()

    def tensors(self) -> dict[str, Tensor]:
        """The state of all, by name."""
        found = optimiser_tensors(self.adam)
        if self.muon is not None:
            found |= optimiser_tensors(self.muon, "muon")
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`."""
        restore_optimiser(self.adam, tensors)
        if self.muon is not None:
            restore_optimiser(self.muon, tensors, "muon")

    def _all(self) -> list[torch.optim.Optimizer]:
        return [self.adam] if self.muon is None else [self.adam, self.muon]
