"""dtp-unigram: a predictor taught the ends of a Unigram tokenizer's pieces."""

from __future__ import annotations

from speak_neuro.config import RunConfig
from speak_neuro.systems.predictor import Predictor


class DtpUnigram(Predictor):
    """What the base teaches: the exemplar's boundaries."""

    @classmethod
    def needs_exemplar(cls, config: RunConfig) -> bool:
        return True
