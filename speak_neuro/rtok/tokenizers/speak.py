"""SPEAK as a segmenter of normalised text: an encoder over the characters of a unit, and one neuron.

    I, e = readouts(encoder(characters up to t + a))      s, u, v = neuron(I, e)      a: the look-ahead, 0 to 4
    s_t = 1: character t is the first of a token (convention `opens`); a unit's first character opens one by itself

The neuron decides about character t after it has read character t + a: a fixed delay. It reads U+2581 after a unit's
end, as if the next word began there, until the last character is decided; what it does in its first a steps, before
there is a character to decide about, goes nowhere but into its potential. So on a chip the text is followed by a times
U+2581, and the spike of step t + a is about character t.

In the paper's RTok (`rtok_config`) a is 0 and the encoder reads one character:

    I = tanh(Linear1(GELU(LayerNorm(Linear(embedding(c))))))      e = Linear2(same)

Current and gate logit are then computed once per character of the alphabet, in training as at inference and in the
exported table. |I| < 1 = threshold, so a character can only fire on a potential that earlier ones left: a unit's first
character never spikes, nor does the one after a hard reset. A window or a convolution also reads the characters before.

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
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.rtok.text.limits import MOST_AHEAD, Limits, tokens_of
from speak_neuro.rtok.text.normalise import WORD
from speak_neuro.supervision.losses import Mixes
from speak_neuro.systems.run_folder import load_system, read_run, save_model, write_config
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.tokenizer.module import Boundaries, SpeakTokenizer

FRAMEWORK = "rtok"
"""Value of `framework` in the config.json of a run folder that holds such a tokenizer."""
POSITIONS = 1 << 20
"""Padded positions that inference has in memory at once; one longer unit is taken alone."""
UNIT_BLOCK = 32
"""Characters per block of a window's canonical computation: a word mostly fits."""


def check_look_ahead(value: Any, where: str | os.PathLike[str]) -> int:
    """`value` as a look-ahead."""
    if type(value) is not int or not 0 <= value <= MOST_AHEAD:
        raise SpeakError(f"{where}: look_ahead is {value!r}; allowed: 0 to {MOST_AHEAD}")
    return value


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
        training=training or TrainingConfig(fire_mix=1.2, rest_mix=0.6, learn_mixes=False, neuron_loss="membrane"),
    )


class CharacterTokenizer(nn.Module):
    """Characters to openings. Keeps no state and has no dropout."""

    def __init__(self, alphabet: Alphabet, config: RunConfig | None = None, look_ahead: int = 0) -> None:
        super().__init__()
        self.alphabet = alphabet
        self.config = config or rtok_config()
        t = self.config.training
        self.boundary = SpeakTokenizer(self.config, len(alphabet))
        self.mixes = Mixes(t.fire_mix, t.rest_mix, t.learn_mixes)
        self.look_ahead = look_ahead
        self.end = int(alphabet.encode(WORD)[0])
        encoder, name = self.boundary.encoder, self.config.tokenizer.encoder
        if encoder.needs_hidden:
            raise SpeakError(f"encoder is {name!r}; allowed for an RTok tokenizer: linear, window, convolution")
        most = min(check_look_ahead(look_ahead, "tokenizer"), encoder.left_context)
        if look_ahead > most:
            seen = f"{encoder.left_context + 1} character{'s' if encoder.left_context else ''}"
            raise SpeakError(
                f"look_ahead is {look_ahead}; allowed with the {name} encoder, which sees {seen}: "
                f"{f'0 to {most}' if most else '0'}, the character that is decided among them"
            )

    @property
    def tabulated(self) -> bool:
        """Whether current and gate logit are functions of the character alone."""
        return self.boundary.encoder.of_one_character

    def table(self) -> Tensor:
        """Current and gate logit of each character, (V, 2), differentiable; only where `tabulated`."""
        characters = torch.arange(len(self.alphabet), device=self.boundary.gate_readout.weight.device)
        with torch.autocast(characters.device.type, enabled=False):
            _, current, gate_logit = self.boundary.inputs(characters[None])
        return torch.stack([current[0], gate_logit[0]], dim=1)

    def drive(self, ids: Tensor, valid: Tensor, table: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Current, gate logit and validity (B, L + a) of the neuron's steps over units (B, L) and what follows them."""
        ahead = self.look_ahead
        if ahead:
            ids = nn.functional.pad(torch.where(valid, ids, self.end), (0, ahead), value=self.end)
        if self.tabulated:
            current, gate_logit = nn.functional.embedding(ids, self.table() if table is None else table).unbind(-1)
        else:
            _, current, gate_logit = self.boundary.inputs(ids)
        return current.contiguous(), gate_logit.contiguous(), nn.functional.pad(valid, (ahead, 0), value=True)

    def forward(self, ids: Tensor, valid: Tensor | None = None, table: Tensor | None = None) -> Boundaries:
        """Boundaries of (B, L) ids, each row a unit, as seen at the step that decides each character; `valid` (B, L) is
        False at padding.
        """
        valid = torch.ones_like(ids, dtype=torch.bool) if valid is None else valid
        with torch.autocast(ids.device.type, enabled=False):
            current, gate_logit, steps = self.drive(ids, valid, table)
            spikes, membrane, state = self.boundary.neuron(current, gate_logit, None, steps)
        decided = slice(self.look_ahead, None)
        return Boundaries(current[:, decided], gate_logit[:, decided], membrane[:, decided], spikes[:, decided], state)

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
        """The neuron's spikes (L,) over each unit, whatever the others are."""
        encoder = self.boundary.encoder
        if not self.tabulated and not encoder.adds_parts:
            # The last bits of a window's sums depend on how many are computed at once: each unit alone, in blocks.
            engine, tail = self.engine(), WORD * self.look_ahead
            runs = (engine.run(self.alphabet.encode(unit + tail)) if unit else None for unit in units)
            return [np.zeros(0, np.bool_) if run is None else run.spikes[self.look_ahead :] for run in runs]
        return self._spikes_of_sums(units)

    def _spikes_of_sums(self, units: Sequence[str]) -> list[BoolArray]:
        """`spikes` of an encoder whose currents are sums of table entries: rows of similar length go together."""
        found: list[BoolArray] = [np.zeros(0, dtype=np.bool_)] * len(units)
        order = sorted(range(len(units)), key=lambda index: len(units[index]))
        table, start = self.table() if self.tabulated else None, 0
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

    def system(self) -> System:
        """A copy of the tokenizer beside a language model that is not used, as export and inference take it."""
        system = System(self.config, len(self.alphabet))
        system.tokenizer.load_state_dict(self.boundary.state_dict())
        system.mixes.load_state_dict(self.mixes.state_dict())
        return system.to(self.boundary.gate_readout.weight.device)

    def engine(self) -> BoundaryEngine:
        """The canonical computation of single units."""
        return BoundaryEngine(self.system(), self.config, UNIT_BLOCK)

    def save(self, folder: str | os.PathLike[str], record: dict[str, Any] | None = None) -> None:
        """Write a run folder that `load`, speak-export and speak-sim read; `record` goes into config.json."""
        about = {**(record or {}), "framework": FRAMEWORK, "convention": "opens", "look_ahead": self.look_ahead}
        write_config(Path(folder), self.config, self.alphabet, about)
        save_model(Path(folder), self.system())

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "cpu") -> CharacterTokenizer:
        """The tokenizer of a run folder that `save` wrote."""
        run = read_run(folder)
        if run.record.get("framework") != FRAMEWORK:
            raise SpeakError(
                f"{folder}: not an RTok tokenizer but a GTok run; load it with speak_neuro.inference.speak.Speak"
            )
        system = load_system(run, choose_device(device))
        try:
            tokenizer = cls(run.alphabet, run.config, run.record.get("look_ahead", 0))
        except SpeakError as error:
            raise SpeakError(f"{folder}: {error}") from None
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
