"""dtp-entropy: a predictor taught the peaks of the model's own entropy, [H_t > H_{t-1} and H_t > H_{t-2}].

H_t is the entropy of the model's next-character distribution in the same pass; the first position always counts as a
peak, the second has one comparison.
"""

from __future__ import annotations

import torch
from torch import Tensor

from speak_neuro.supervision.entropy import character_entropy
from speak_neuro.systems.predictor import Predictor
from speak_neuro.systems.segmenter import Lesson


def entropy_peaks(entropy: Tensor) -> Tensor:
    """Positions whose entropy exceeds that of the two before: (B, L) -> (B, L) bool."""
    peaks = torch.ones_like(entropy, dtype=torch.bool)
    peaks[:, 1:] &= entropy[:, 1:] > entropy[:, :-1]
    peaks[:, 2:] &= entropy[:, 2:] > entropy[:, :-2]
    return peaks


class DtpEntropy(Predictor):
    """Taught by the language model itself, without an exemplar."""

    def lesson(self, lesson: Lesson) -> Tensor:
        return entropy_peaks(character_entropy(lesson.logits))
