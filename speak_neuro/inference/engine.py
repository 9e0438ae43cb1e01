"""Boundaries of a text, the same whatever the batch, the chunking or the stream.

A matrix product's last bits depend on its shape, and a spike is a comparison of accumulated sums: the same character
can spike or not depending on how many others it was computed with. So every position's inputs are computed in one
canonical way, a function of the text up to it and of its place alone:

    linear              one table over the alphabet, made once
    convolution         k table entries, added in the order of their delays
    window, hourglass   blocks of fixed shape at absolute positions, padded at the end; what lies after a position
                        cannot reach it, and what comes before it inside the block is the text itself

The neuron then runs over them position by position with its potential carried on, in one piece or in many.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from speak_neuro.common.array_types import Float32Array, Int32Array
from speak_neuro.config import RunConfig
from speak_neuro.errors import SpeakError
from speak_neuro.systems.system import System

BLOCK = 512
"""Characters per block of the window and convolution encoders."""


if hasattr(os, "register_at_fork"):
    # The threads of a process stay behind in its fork, and OpenMP would wait for them for ever: a child computes alone.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class Trace(NamedTuple):
    """The tokenizer's run over one text of L characters."""

    features: Float32Array
    """(L, D) input of the readouts."""
    current: Float32Array
    gate_logit: Float32Array
    """As the reset mode reads it: constants where the mode ignores the gate."""
    membrane: Float32Array
    spikes: npt.NDArray[np.bool_]


class BoundaryEngine:
    """Runs a trained tokenizer over character ids. Its state is a `Cursor`, made by `start`.

    `block` is part of the canonical way: another one may change the currents' last bits.
    """

    def __init__(self, system: System, config: RunConfig, block: int = BLOCK) -> None:
        if not system.is_speak:
            raise SpeakError(
                f"the run's tokenizer is {config.tokenizer.kind}; only a speak run tokenizes text by itself and can be "
                "exported: train one with --tokenizer speak"
            )
        self.system = system.eval()
        self.tokenizer = system.tokenizer
        self.encoder_name = config.tokenizer.encoder
        self.device = next(system.parameters()).device
        self.window = config.training.window
        encoder = self.tokenizer.encoder
        self.table: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        if encoder.of_one_character:
            self.block, self.context = block, 0
            with torch.no_grad():
                vocabulary = system.language_model.config.vocabulary
                features, current, gate = self._inputs(torch.arange(vocabulary, device=self.device)[None])
                self.table = (features, current, gate)
        elif encoder.needs_hidden:
            # Half a training window of context before each block, so that no position sees less than in training.
            self.block = max(1, config.training.window // 2)
            self.context = self.block
        else:
            self.block, self.context = block, encoder.left_context

    def start(self) -> Cursor:
        """A cursor at the beginning of a text."""
        return Cursor(self)

    def run(self, ids: Int32Array) -> Trace:
        """Everything about the text with these ids, from the reset potential."""
        return self.start().advance(ids)

    def _inputs(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.system.language_model.pre(ids) if self.tokenizer.needs_hidden else None
        features, current, gate_logit = self.tokenizer.inputs(ids, hidden)
        return features[0], current[0], self.tokenizer.effective_gate(gate_logit)[0]

    def inputs(self, seen: Int32Array, lead: int, new: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs of the last `new` of the characters `seen`, of which `lead` stand before the present block."""
        if self.table is not None:
            chosen = torch.from_numpy(seen[-new:].astype(np.int64)).to(self.device)
            features, current, gate = self.table
            return features[chosen], current[chosen], gate[chosen]
        padded = np.zeros((1, lead + self.block), dtype=np.int64)
        padded[0, : seen.size] = seen
        features, current, gate = self._inputs(torch.from_numpy(padded).to(self.device))
        rows = slice(seen.size - new, seen.size)
        return features[rows], current[rows], gate[rows]


class Cursor:
    """A place in a text: the last characters, the number of characters before the block, and the potential."""

    def __init__(self, engine: BoundaryEngine) -> None:
        self._engine = engine
        self._seen: Int32Array = np.zeros(0, dtype=np.int32)  # context before the block, then the block so far
        self._lead = 0
        self._potential: torch.Tensor | None = None

    @property
    def potential(self) -> torch.Tensor:
        """v after the last character, ()."""
        if self._potential is None:
            at_rest: torch.Tensor = self._engine.tokenizer.neuron.reset_potential.detach().reshape(())
            return at_rest
        return self._potential[0]

    @property
    def room(self) -> int:
        """Characters until the next block begins."""
        return self._lead + self._engine.block - self._seen.size or self._engine.block

    def before_next(self) -> Int32Array:
        """What the next character's block shows before it."""
        if self._seen.size == self._lead + self._engine.block:
            return self._seen[self._seen.size - min(self._engine.context, self._seen.size) :]
        return self._seen

    @torch.no_grad()
    def advance(self, ids: Int32Array) -> Trace:
        """The run over the next characters."""
        ids = np.asarray(ids, dtype=np.int32)
        if ids.size == 0:
            width = self._engine.tokenizer.current_readout.in_features
            empty = np.zeros(0, np.float32)
            return Trace(np.zeros((0, width), np.float32), empty, empty, empty, np.zeros(0, np.bool_))
        engine, pieces, done = self._engine, [], 0
        if engine.table is not None:
            pieces.append(engine.inputs(ids, 0, ids.size))
        else:
            while done < ids.size:
                if self._seen.size == self._lead + engine.block:
                    self._lead = min(engine.context, self._seen.size)
                    self._seen = self._seen[self._seen.size - self._lead :]
                take = min(ids.size - done, self._lead + engine.block - self._seen.size)
                self._seen = np.concatenate([self._seen, ids[done : done + take]])
                pieces.append(engine.inputs(self._seen, self._lead, take))
                done += take
        features, current, gate = (torch.cat(part) for part in zip(*pieces, strict=True))
        neuron = engine.tokenizer.neuron
        spikes, membrane, self._potential = neuron(current[None], gate[None], self._potential)
        arrays = [value.cpu().numpy() for value in (features, current, gate, membrane[0], spikes[0])]
        return Trace(arrays[0], arrays[1], arrays[2], arrays[3], arrays[4].astype(np.bool_))
