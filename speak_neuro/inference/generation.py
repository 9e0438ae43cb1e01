"""Text written by a trained run's language model, token by token: `Speak.generate`, speak-generate.

    p(next character) = softmax(logits / temperature), of which top_k and top_p keep the likeliest

The neuron cuts the text while it is written, and the language model's shortened layers read its tokens, as in training.
Every step computes one position (`speak_neuro.stepping`); its logits equal those of the whole pass up to rounding, and
the tokens are exactly those that `Speak.tokens` finds in the finished text.

The language model sees a limited past, as in training: when it holds `context` characters, it goes on with the last
half of them, from the beginning of a token on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speak_neuro.errors import SpeakError
from speak_neuro.inference.boundary_steps import BoundarySteps
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.model.stepping import HourglassStepper
from speak_neuro.text.alphabet import UNKNOWN, Alphabet


@dataclass(frozen=True)
class Sampling:
    """How the next character is chosen."""

    temperature: float = 1.0
    """Divides the logits; 0 always takes the likeliest character."""
    top_k: int = 0
    """Only the k likeliest characters; 0 for all."""
    top_p: float = 1.0
    """Only the likeliest characters that together have this probability."""
    seed: int = 0
    """Of the draws. Row i of a batch draws with (seed, i), whatever stands beside it."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; allowed: 0 or more")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; allowed: 0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; allowed: above 0, up to 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; allowed: 0 or more")


def choose(logits: npt.NDArray[np.floating[Any]], draw: float, sampling: Sampling) -> int:
    """The character id that a draw from [0, 1) stands for: logits (V,), the unknown character's never chosen."""
    scores = logits.astype(np.float64)
    scores[UNKNOWN] = -np.inf
    order = np.argsort(-scores, kind="stable")
    if sampling.temperature == 0:
        return int(order[0])
    with np.errstate(over="ignore"):  # next to no temperature: all but the likeliest are infinitely far
        shares = np.exp((scores[order] - scores[order[0]]) / sampling.temperature)
    if sampling.top_k:
        shares = shares[: sampling.top_k]
    total = shares.cumsum() / shares.sum()
    if sampling.top_p < 1:
        kept = int(np.searchsorted(total, sampling.top_p)) + 1
        total = total[:kept] / total[min(kept, total.size) - 1]
    return int(order[min(int(np.searchsorted(total, draw, side="right")), total.size - 1)])


class Generation:
    """Texts that grow by one character at a time from their prompts."""

    def __init__(
        self,
        engine: BoundaryEngine,
        alphabet: Alphabet,
        prompts: Sequence[str],
        sampling: Sampling,
        context: int,
    ) -> None:
        if not prompts:
            raise ValueError("prompts are none; allowed: at least one")
        for index, prompt in enumerate(prompts):
            if not prompt:
                raise ValueError(f"prompt {index} is empty; allowed: at least one character to go on from")
        if engine.tokenizer.smooth:
            raise SpeakError("the run has unpooling smooth; speak-generate reads tokens as they are: train one without")
        if context < 2:
            raise ValueError(f"context is {context}; allowed: at least 2 characters")
        if len(alphabet) < 2:
            raise ValueError("the run's alphabet is empty; there is no character to write")
        self.alphabet, self.sampling, self.context = alphabet, sampling, context
        self.model = engine.system.language_model
        self.device = engine.device
        self._characters = alphabet.decode_lossy(range(len(alphabet)))
        self.texts = list(prompts)
        ids = [alphabet.encode(prompt) for prompt in prompts]
        self._steps = BoundarySteps(engine, ids)
        self.ids = [row.tolist() for row in ids]
        self.spikes = [row.tolist() for row in self._steps.beginnings]
        self.starts = [0] * len(ids)
        """The first character of each text that the language model sees."""
        self._draws = [np.random.default_rng([sampling.seed, row]) for row in range(len(ids))]
        self.logits = self._begin()
        """(B, V), of each text's next character."""

    @torch.inference_mode()
    def _begin(self) -> torch.Tensor:
        """Logits after a pass over what the language model shall see of each text."""
        for row, spikes in enumerate(self.spikes):
            if len(spikes) - self.starts[row] >= self.context:
                earliest = len(spikes) - max(1, self.context // 2)
                ends = np.flatnonzero(spikes[earliest - 1 : -1])
                self.starts[row] = earliest + (int(ends[0]) if ends.size else 0)
        lengths = [len(ids) - start for ids, start in zip(self.ids, self.starts, strict=True)]
        padded = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        closes = torch.zeros(padded.shape, dtype=torch.bool)
        for row, (start, length) in enumerate(zip(self.starts, lengths, strict=True)):
            padded[row, :length] = torch.tensor(self.ids[row][start:])
            closes[row, :length] = torch.tensor(self.spikes[row][start:])
        self._stepper = HourglassStepper(self.model, len(lengths))
        hidden = self._stepper.begin(padded.to(self.device), torch.tensor(lengths, device=self.device))
        return self._stepper.decode_beginning(hidden, closes.to(self.device))

    @torch.inference_mode()
    def step(self) -> list[bool]:
        """Write one character to each text; whether it ends a token."""
        scores = self.logits.float().cpu().numpy()
        chosen = [choose(row, d.random(), self.sampling) for row, d in zip(scores, self._draws, strict=True)]
        for row, character in enumerate(chosen):
            self.ids[row].append(character)
            self.texts[row] += self._characters[character]
        closes = self._steps.step(chosen)
        for spikes, fired in zip(self.spikes, closes.tolist(), strict=True):
            spikes.append(fired)
        if any(len(ids) - start >= self.context for ids, start in zip(self.ids, self.starts, strict=True)):
            self.logits = self._begin()
        else:
            hidden = self._stepper.pre(torch.tensor(chosen, device=self.device))
            self.logits = self._stepper.decode(hidden, closes)
        return closes.tolist()

    def run(self, characters: int) -> Iterator[tuple[int, str]]:
        """(row, token) as each token closes, `characters` long in all for each text; then the unfinished ones."""
        if characters < 1:
            raise ValueError(f"characters is {characters}; allowed: at least 1")
        given = [len(text) for text in self.texts]
        for _ in range(characters):
            for row, fired in enumerate(self.step()):
                if fired:
                    yield row, self.texts[row][given[row] :]
                    given[row] = len(self.texts[row])
        for row, text in enumerate(self.texts):
            if given[row] < len(text):
                yield row, text[given[row] :]
