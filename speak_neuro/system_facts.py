"""What a system's class says of itself, before there is one: read from the class that `config.SYSTEMS` names.

The base of SPEAK's own tokenizer (`speak_neuro.tokenizer.module`) and of all others (`speak_neuro.systems.segmenter`).
"""

from __future__ import annotations

from typing import ClassVar

from speak_neuro.config import RunConfig


class SystemFacts:
    """Facts of a class, each with what holds where it says nothing else."""

    shortens: ClassVar[bool] = True
    """Without, the model's layers all run on characters."""
    samples: ClassVar[bool] = False
    """Whether it draws its boundaries in training, and may do so in evaluation."""

    @classmethod
    def needs_exemplar(cls, config: RunConfig) -> bool:
        """Whether training reads an exemplar tokenizer's boundaries."""
        return False

    @classmethod
    def knob(cls, config: RunConfig) -> str | None:
        """What holds its rate while it trains towards a target shortening factor (`supervision.knob`)."""
        return "odds" if cls.samples else None

    @classmethod
    def check(cls, config: RunConfig) -> str:
        """What makes these settings impossible, as a sentence that names the remedy; empty where nothing does."""
        return ""

    @classmethod
    def check_text(cls, start: str) -> str:
        """The same about the beginning of a training text."""
        return ""
