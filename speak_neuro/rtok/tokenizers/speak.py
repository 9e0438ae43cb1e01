"""SPEAK as a segmenter of normalised text (paper's RTok): a table over characters and one neuron.

    I = tanh(Linear1(GELU(LayerNorm(Linear(embedding(c))))))      e = Linear2(same)      s, u, v = neuron(I, e)
    s_t = 1: character t is the first of a token (convention `opens`); a unit's first character opens one by itself

Current and gate logit are functions of the character alone, so they are computed once per character of the alphabet,
in training as at inference and in the exported table. |I| < 1 = threshold, so a character can only fire on a potential
that earlier ones left: a unit's first character never spikes, nor does the one after a hard reset.

Every unit begins at the reset potential: each word of UNER, each sentence of XNLI.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speak_neuro.common.array_types import BoolArray
from speak_neuro.common.device import choose_device
from speak_neuro.config import ModelConfig, NeuronConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.text.limits import Limits, tokens_of
from speak_neuro.supervision.losses import Mixes
from speak_neuro.systems.run_folder import load_system, read_run, save_model, write_config
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.tokenizer.module import Boundaries, SpeakTokenizer

FRAMEWORK = "rtok"
"""Value of `framework` in the config.json of a run folder that holds such a tokenizer."""
POSITIONS = 1 << 20
"""Padded positions that inference has in memory at once; one longer unit is taken alone."""


def rtok_config(
    neuron: NeuronConfig | None = None, tokenizer: TokenizerConfig | None = None, training: TrainingConfig | None = None
) -> RunConfig:
    """The paper's settings: d 128, tanh, alpha 1.2 and beta 0.6 constant. The language model is not used, and as small
    as one can be.
    """
    return RunConfig(
        neuron=neuron or NeuronConfig(),
        tokenizer=tokenizer or TokenizerConfig(encoder="linear", encoder_width=128, context=1, tanh=True),
        model=ModelConfig(width=2, heads=1, inner=1, pre_layers=0, shortened_layers=0, post_layers=0),
        training=training or TrainingConfig(fire_mix=1.2, rest_mix=0.6, learn_mixes=False),
    )


class CharacterTokenizer(nn.Module):
    """Characters to openings. Keeps no state and has no dropout: training and evaluation mode are the same."""

    def __init__(self, alphabet: Alphabet, config: RunConfig | None = None) -> None:
        super().__init__()
        self.alphabet = alphabet
        self.config = config or rtok_config()
        if self.config.tokenizer.encoder != "linear":
            raise SpeakError(
                f"encoder is {self.config.tokenizer.encoder!r}; allowed for an RTok tokenizer: linear, a "
                "function of the character alone"
            )
        t = self.config.training
        self.boundary = SpeakTokenizer(self.config, len(alphabet))
        self.mixes = Mixes(t.fire_mix, t.rest_mix, t.learn_mixes)

    def table(self) -> Tensor:
        """Current and gate logit of each character, (V, 2), differentiable."""
        characters = torch.arange(len(self.alphabet), device=self.boundary.gate_readout.weight.device)
        with torch.autocast(characters.device.type, enabled=False):
            _, current, gate_logit = self.boundary.inputs(characters[None])
        return torch.stack([current[0], gate_logit[0]], dim=1)

    def forward(self, ids: Tensor, valid: Tensor | None = None, table: Tensor | None = None) -> Boundaries:
        """Boundaries of (B, L) ids, each row a unit; `valid` (B, L) is False at padding."""
        with torch.autocast(ids.device.type, enabled=False):
            inputs = nn.functional.embedding(ids, self.table() if table is None else table)
            current, gate_logit = inputs.unbind(-1)
            spikes, membrane, state = self.boundary.neuron(current.contiguous(), gate_logit.contiguous(), None, valid)
        return Boundaries(current, gate_logit, membrane, spikes, state)

    def rows(self, units: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and validity (B, L) of B units, padded to the longest, on the tokenizer's device."""
        longest = max(map(len, units), default=0)
        ids = np.zeros((len(units), longest), dtype=np.int64)
        valid = np.zeros((len(units), longest), dtype=np.bool_)
        for row, unit in enumerate(units):
            ids[row, : len(unit)] = self.alphabet.encode(unit)
            valid[row, : len(unit)] = True
        device = self.boundary.gate_readout.weight.device
        return torch.from_numpy(ids).to(device), torch.from_numpy(valid).to(device)

    @torch.no_grad()
    def spikes(self, units: Sequence[str]) -> list[BoolArray]:
        """The neuron's spikes (L,) over each unit, whatever the others are: rows of similar length go together."""
        found: list[BoolArray] = [np.zeros(0, dtype=np.bool_)] * len(units)
        order = sorted(range(len(units)), key=lambda index: len(units[index]))
        table, start = self.table(), 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * len(units[order[end]]) <= POSITIONS:
                end += 1
            part = order[start:end]
            if len(units[part[-1]]):
                fired = self(*self.rows([units[index] for index in part]), table=table).spikes.cpu().numpy() > 0
                for row, index in zip(fired, part, strict=True):
                    found[index] = row[: len(units[index])]
            start = end
        return found

    def save(self, folder: str | os.PathLike[str], record: dict[str, Any] | None = None) -> None:
        """Write a run folder that `load`, speak-export and speak-sim read; `record` goes into config.json."""
        system = System(self.config, len(self.alphabet))
        assert system.tokenizer is not None
        system.tokenizer.load_state_dict(self.boundary.state_dict())
        system.mixes.load_state_dict(self.mixes.state_dict())
        about = {**(record or {}), "framework": FRAMEWORK, "convention": "opens"}
        write_config(Path(folder), self.config, self.alphabet, about)
        save_model(Path(folder), system)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "cpu") -> CharacterTokenizer:
        """The tokenizer of a run folder that `save` wrote."""
        run = read_run(folder)
        if run.record.get("framework") != FRAMEWORK:
            raise SpeakError(
                f"{folder}: not an RTok tokenizer but a GTok run; load it with speak_neuro.inference.speak.Speak"
            )
        system = load_system(run, choose_device(device))
        tokenizer = cls(run.alphabet, run.config)
        tokenizer.boundary.load_state_dict(system.tokenizer.state_dict())
        tokenizer.mixes.load_state_dict(system.mixes.state_dict())
        return tokenizer.to(choose_device(device)).eval()


class SpeakSegmenter:
    """A CharacterTokenizer behind the interface of speak_neuro.rtok.text.segmenter; `language` makes no difference."""

    name = "speak"

    def __init__(self, tokenizer: CharacterTokenizer, limits: Limits | None = None) -> None:
        self.tokenizer = tokenizer
        self.limits = limits or Limits()

    def segment(self, batch: Sequence[Sequence[str]], language: str) -> list[list[list[str]]]:
        """Tokens of each unit of each sentence; a unit's tokens depend on nothing else."""
        distinct = list(dict.fromkeys(unit for units in batch for unit in units))
        spikes = self.tokenizer.spikes(distinct)
        tokens = {unit: tokens_of(unit, fired, self.limits) for unit, fired in zip(distinct, spikes, strict=True)}
        return [[list(tokens[unit]) for unit in units] for units in batch]
