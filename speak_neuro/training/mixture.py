"""One language model behind several systems in turn: what a branching comparison starts from.

    step k        trains member k mod n: its segmenter on its own segmentation, the language model on whatever comes
    afterwards    every member is a run folder with the common language model, to go on from (`--start-from`)

So the language model has seen the tokens of all that are compared, for an equal share of the steps, and what its
branches differ in is the segmentation and a short training on it alone. A system is a family: relatives of one of them
would give it more than its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from speak_neuro.common.tensors import read_tensors, write_tensors
from speak_neuro.config import SYSTEMS, RunConfig
from speak_neuro.supervision.proxy import ProxyStore
from speak_neuro.systems.run_folder import STATE
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.fit import train_step
from speak_neuro.training.metrics_log import MetricsLog
from speak_neuro.training.trainer import Ids, Trainer


class Shared(System):
    """The language model and every member's own modules, as one system for the optimiser and the checkpoint."""

    def __init__(self, members: Sequence[System]) -> None:
        nn.Module.__init__(self)
        self.config = members[0].config
        self.language_model = members[0].language_model
        own = [[member.boundary_module, getattr(member, "mixes", None), member.rate] for member in members]
        self.own = nn.ModuleList(nn.ModuleList(part for part in parts if part is not None) for parts in own)
        self.rate = None

    @property
    def is_speak(self) -> bool:
        return False

    @property
    def boundary_module(self) -> nn.ModuleList:  # type: ignore[override]
        return self.own


@dataclass
class Member:
    """One of the systems, by the name of its run folder."""

    name: str
    system: System
    proxy: ProxyStore | None


@dataclass
class Mixture:
    """A common training in progress."""

    members: list[Member]
    shared: Shared
    trainer: Trainer

    @classmethod
    def create(
        cls,
        configs: dict[str, RunConfig],
        alphabet: Alphabet,
        ids: Ids,
        proxy: ProxyStore | None,
        device: torch.device | str = "cpu",
    ) -> Mixture:
        """At step 0, all weights from the first member's seed; `proxy` holds the exemplar's boundaries."""
        check_members(configs)
        first = next(iter(configs.values())).training
        torch.manual_seed(first.seed)
        systems = [System(config, len(alphabet), alphabet) for config in configs.values()]
        for system in systems[1:]:
            system.language_model = systems[0].language_model
        shared = Shared(systems).to(device)
        for system in systems:
            system.to(device)
        members = [
            Member(name, system, proxy if system.config.needs_exemplar else None)
            for name, system in zip(configs, systems, strict=True)
        ]
        return cls(members, shared, Trainer.create(shared, first, ids, proxy))

    def step(self) -> tuple[str, dict[str, float]]:
        """One step of the member whose turn it is; its name and what was measured."""
        trainer = self.trainer
        member = self.members[trainer.step % len(self.members)]
        trainer.system, trainer.config, trainer.proxy = member.system, member.system.config.training, member.proxy
        return member.name, train_step(trainer)

    def save(self, folder: Path) -> None:
        """Write state.safetensors: enough to go on bit for bit."""
        self.trainer.system, self.trainer.proxy = self.shared, None
        write_tensors(folder / STATE, *self.trainer.snapshot())

    def restore(self, folder: Path) -> None:
        """The inverse of `save`."""
        self.trainer.system, self.trainer.proxy = self.shared, None
        self.trainer.restore(*read_tensors(folder / STATE), folder / STATE)

    def fit(self, folder: Path, every: int) -> None:
        """Train to the configured step; a checkpoint at every `every` steps, a line of metrics.jsonl for each step."""
        log = MetricsLog(folder, self.trainer.step)
        steps = self.members[0].system.config.training.steps
        while self.trainer.step < steps:
            name, record = self.step()
            log.append({"member": name, **record})
            if self.trainer.step % every == 0 or self.trainer.step == steps:
                self.save(folder)


def check_members(configs: dict[str, RunConfig]) -> None:
    """Refuse members that cannot share a language model and its steps."""
    first = next(iter(configs.values()))
    for name, config in configs.items():
        if config.model != first.model:
            raise ValueError(f"member {name} has another model; allowed: the same for all")
        if not SYSTEMS.load(config.tokenizer.kind).shortens:
            raise ValueError(
                f"member {name} is {config.tokenizer.kind}, all on characters; allowed: systems that shorten"
            )
        for item in ("steps", "batch", "window", "seed", "learning_rate", "warmup", "precision", "exemplar_vocabulary"):
            if getattr(config.training, item) != getattr(first.training, item):
                raise ValueError(
                    f"member {name} has {item} {getattr(config.training, item)}; allowed: "
                    f"{getattr(first.training, item)}, as the first member"
                )
        if config.is_speak and config.training.drive == "proxy" and config.training.acceptance != "never":
            raise ValueError(f"member {name} accepts proxies, which others read; allowed: acceptance never")
