"""Boundaries character by character, as `BoundaryEngine` decides them, without a block of it for every character.

The engine computes each character inside a block of fixed shape, so that rounding never depends on how a text arrives.
For text that arrives in single characters that is hundreds of times the work. Here a step computes its one position,
and the engine is asked only where rounding could matter: where the potential, or the gate at a spike, is within
`MARGIN` of its threshold. Rounding is a
thousand times smaller. At the end of each block the engine goes over it as a whole, which checks every spike and makes
the potential exact again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from speak_neuro.common.array_types import Int32Array
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.model.stepping import StackCache
from speak_neuro.neuron.reference import gated_lif_step
from speak_neuro.neuron.resets import RESETS

MARGIN = 1e-3
"""Distance from a threshold, in units of the configuration, below which the engine decides."""


class BoundarySteps:
    """The boundaries of several texts that grow by one character each at every step."""

    def __init__(self, engine: BoundaryEngine, beginnings: list[Int32Array]) -> None:
        self.engine = engine
        self.device = engine.device
        # Look-ups are exact and cheap as they are; on an integer grid rounding moves a feature by a whole grid step.
        self._exact = engine.table is not None or engine.tokenizer.grid is not None
        self._cursors = [engine.start() for _ in beginnings]
        self.asked = 0
        """How often the engine decided a spike that was too near to a threshold."""
        self.beginnings = [cursor.advance(ids).spikes for cursor, ids in zip(self._cursors, beginnings, strict=True)]
        """The spikes of the beginnings."""
        self._recent = [list(ids.tolist()) for ids in beginnings]
        self._pending: list[list[int]] = [[] for _ in beginnings]  # ids of which the cursors do not know yet
        self._decided: list[list[bool]] = [[] for _ in beginnings]
        self._blocks: list[StackCache | None] = [None for _ in beginnings]
        self._neuron = engine.tokenizer.neuron.parameters_numpy()
        self._potential = np.array([float(cursor.potential) for cursor in self._cursors], dtype=np.float32)

    @torch.inference_mode()
    def step(self, ids: list[int]) -> Tensor:
        """Whether a token ends with each text's next character: (B,) bool."""
        if self._exact:
            found = [c.advance(np.array([i], np.int32)) for c, i in zip(self._cursors, ids, strict=True)]
            return torch.tensor([bool(trace.spikes[0]) for trace in found], device=self.device)
        reach = self.engine.tokenizer.encoder.left_context + 1
        for row, character in enumerate(ids):
            self._recent[row] = [*self._recent[row][-reach:], character]
            self._pending[row].append(character)
        current, gate = (x.cpu().numpy() for x in self._inputs(reach))
        spikes, membrane, self._potential = gated_lif_step(current, gate, self._potential, self._neuron)
        near = np.abs(membrane - self._neuron.threshold) < MARGIN
        if RESETS[self._neuron.mode].reads_gate:
            near |= spikes & (np.abs(gate) < MARGIN)
        fired = spikes.tolist()
        for row, unsure in enumerate(near.tolist()):
            if unsure or self._cursors[row].room == len(self._pending[row]):
                self.asked += unsure
                fired[row] = self._ask(row)
            else:
                self._decided[row].append(fired[row])
        return torch.tensor(fired, device=self.device)

    def _ask(self, row: int) -> bool:
        """The engine's word on a text's last character; what was decided before it must agree."""
        spikes = self._cursors[row].advance(np.array(self._pending[row], np.int32)).spikes
        if spikes[:-1].tolist() != self._decided[row]:
            raise RuntimeError(f"a spike decided by one step differs from its block's; MARGIN {MARGIN} is too small")
        self._pending[row], self._decided[row] = [], []
        self._potential[row] = float(self._cursors[row].potential)
        return bool(spikes[-1])

    def _inputs(self, reach: int) -> tuple[Tensor, Tensor]:
        """Current and gate logit of each text's last character, up to rounding: (B,), (B,)."""
        tokenizer = self.engine.tokenizer
        if tokenizer.needs_hidden:
            hidden = torch.stack([self._hidden(row) for row in range(len(self._recent))])[:, None]
            last = torch.tensor([[recent[-1]] for recent in self._recent], device=self.device)
            _, current, gate = tokenizer.inputs(last, hidden)
            return current[:, -1], gate[:, -1]
        seen = [recent[-reach:] for recent in self._recent]
        groups = [seen] if len({len(row) for row in seen}) == 1 else [[row] for row in seen]
        found = [tokenizer.inputs(torch.tensor(group, device=self.device)) for group in groups]
        return torch.cat([f.current[:, -1] for f in found]), torch.cat([f.gate_logit[:, -1] for f in found])

    def _hidden(self, row: int) -> Tensor:
        """The language model's pre-layer state of a text's last character, seen from its block: (D,)."""
        model, cache = self.engine.system.language_model, self._blocks[row]
        before = self._cursors[row].before_next()
        if cache is None or int(cache.counts[0]) != len(before) + len(self._pending[row]) - 1:
            cache = StackCache(model.pre_stack, model.content_bias, model.distance_bias, 1)
            ids = torch.from_numpy(before.astype(np.int64))[None].to(self.device)
            if len(before):
                cache.fill(model.embedding(ids), torch.tensor([len(before)], device=self.device))
            self._blocks[row] = cache
        last = torch.tensor([self._recent[row][-1]], device=self.device)
        return cache.step(model.embedding(last))[0]
