"""A run in progress: its weights, optimiser and data, and what every system's step reads.

Everything random is a function of (seed, step), so a resumed run ends with the same bits. Several processes share a
step by rows (`training.distributed`); what is random about a row does not depend on their number, dropout excepted.
The steps themselves are in `speak_step` and `baselines`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from speak_neuro.common.device import choose_precision
from speak_neuro.common.tensors import apply_tensors
from speak_neuro.config import TrainingConfig
from speak_neuro.corpus.windows import WindowSampler, windows
from speak_neuro.errors import SpeakError
from speak_neuro.model.compiled import compile_passes
from speak_neuro.supervision.proxy import ProxyStore
from speak_neuro.systems.system import System
from speak_neuro.training.distributed import ALONE, Ranks
from speak_neuro.training.optimiser import RunOptimiser

Ids = npt.NDArray[Any]


@dataclass
class Trainer:
    """A run in progress: what a step changes, and the data it reads."""

    system: System
    config: TrainingConfig
    ids: Ids
    """The training text's character ids, in memory or memory-mapped."""
    proxy: ProxyStore | None
    """SPEAK's proxy spikes, or the exemplar's boundaries that dtp-unigram learns; None for systems without a target."""
    sampler: WindowSampler
    optimiser: RunOptimiser
    ranks: Ranks = ALONE
    step: int = 0
    seconds: float = 0.0
    """Time spent in steps, over all resumes."""
    saved_step: int | None = None
    """Step of the newest checkpoint on disk."""

    @classmethod
    def create(
        cls, system: System, config: TrainingConfig, ids: Ids, proxy: ProxyStore | None, ranks: Ranks = ALONE
    ) -> Trainer:
        """A run at step 0; `system` already on its device. All processes give the same text, proxy and weights."""
        ranks.check_batch(config.batch)
        if len(ids) < config.window + 1:
            raise ValueError(f"text has {len(ids)} characters; allowed: at least window + 1 = {config.window + 1}")
        if proxy is None and system.config.needs_exemplar:
            raise ValueError(f"proxy is None; allowed for {system.config.tokenizer.kind}: a ProxyStore of the text")
        if proxy is not None:
            proxy.check_length(len(ids))
        sampler = WindowSampler(len(ids), config.window, config.batch, config.seed)
        if config.compile != "no":
            device = next(system.parameters()).device
            if config.compile == "graphs" and device.type != "cuda":
                raise SpeakError(
                    f"--compile is graphs and the device {device}; CUDA graphs need a CUDA device, use yes"
                )
            mode = "reduce-overhead" if config.compile == "graphs" else None
            compile_passes(system.language_model, config.window, mode=mode)
        return cls(system, config, ids, proxy, sampler, RunOptimiser(system, config), ranks)

    @property
    def device(self) -> torch.device:
        return next(self.system.parameters()).device

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a resume needs, as tensors and JSON values."""
        tensors = {f"system.{name}": value for name, value in self.system.state_dict().items()}
        tensors.update(self.optimiser.tensors())
        if self.proxy is not None:
            tensors["proxy"] = torch.from_numpy(np.array(self.proxy.snapshot()))
        return tensors, {"step": self.step, "seconds": self.seconds}

    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, Any], where: Any = "checkpoint") -> None:
        """The inverse of `snapshot`."""
        system = {name[7:]: value for name, value in tensors.items() if name.startswith("system.")}
        apply_tensors(self.system, system, where)
        self.optimiser.restore(tensors)
        if self.proxy is not None:
            self.proxy.restore(tensors["proxy"].numpy())
        self.step = int(metadata["step"])
        self.seconds = float(metadata.get("seconds", 0.0))


def read_batch(trainer: Trainer) -> tuple[npt.NDArray[np.int64], Tensor, Tensor, Tensor]:
    """This step's windows: starts (B,) of all; ids, following ids and proxy spikes, or none, of this process's rows."""
    config, device = trainer.config, trainer.device
    starts = trainer.sampler.starts_at(trainer.step)
    own = trainer.ranks.own(starts)
    rows = torch.from_numpy(windows(trainer.ids, own, config.window + 1).astype(np.int64)).to(device)
    read = (
        np.zeros(rows[:, 1:].shape, dtype=np.bool_) if trainer.proxy is None else trainer.proxy.read(own, config.window)
    )
    return starts, rows[:, :-1], rows[:, 1:], torch.from_numpy(read).to(device)


def language_model_precision(trainer: Trainer) -> torch.autocast:
    chosen = choose_precision(trainer.config.precision, trainer.device)
    return torch.autocast(trainer.device.type, torch.bfloat16, enabled=chosen == "bfloat16")


def next_character_nats(logits: Tensor, following: Tensor) -> Tensor:
    """-ln p(following character) of (B, L, V) logits: (B, L)."""
    # Flat, since with the characters on the second of three axes it takes thrice as long.
    flat = nn.functional.cross_entropy(logits.float().flatten(0, 1), following.flatten(), reduction="none")
    return flat.view_as(following)
