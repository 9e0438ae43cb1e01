"""Boundaries predicted from the language model's pre-layers, which the predictor's loss trains too (DTP).

    e_t = Linear(GELU(Linear(h_t)))      b_t = [e_t > 0]      L = BCE(e, boundaries that are taught)

With `double_sigmoid` BCE takes sigmoid(e) for its logit: DTP's code does so, which moves the decision to true
probabilities above about 0.62.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speak_neuro.config import RunConfig
from speak_neuro.model.hourglass import predictor_view
from speak_neuro.systems.gumbel import GumbelBoundaries, GumbelPredictor
from speak_neuro.systems.segmenter import Cut, Lesson, Segmenter
from speak_neuro.text.alphabet import Alphabet


class Predictor(Segmenter):
    """A predictor that is taught boundaries; which ones its subclasses say."""

    needs_hidden = True

    @classmethod
    def build(cls, config: RunConfig, alphabet: Alphabet | None) -> Predictor:
        return cls(config)

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        tokenizer, model = config.tokenizer, config.model
        self.predictor = self.new_predictor()
        self.sampled = self.samples and tokenizer.sample_at_evaluation
        self.norm = model.norm

    def new_predictor(self) -> GumbelPredictor:
        """A fresh predictor of the run's size."""
        tokenizer, model = self.config.tokenizer, self.config.model
        return GumbelPredictor(model.width, model.inner, tokenizer.predictor_temperature)

    def predict(self, ids: Tensor, hidden: Tensor, sample: bool, uniform: Tensor | None = None) -> GumbelBoundaries:
        """Boundaries as numbers, with a gradient when they are sampled (from `uniform`, or drawn), and logits."""
        return self.predictor(predictor_view(hidden, self.norm), sample, uniform)  # type: ignore[no-any-return]

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        assert hidden is not None  # `needs_hidden`
        return self.predict(ids, hidden, self.sampled).boundaries.detach() > 0.5

    def taught(self, step: int) -> bool:
        return not self.drawn(step)

    def lesson(self, lesson: Lesson) -> Tensor:
        """The boundaries (B, L) that it is taught."""
        return lesson.exemplar

    def cut(self, ids: Tensor, hidden: Tensor, step: int, uniform: Tensor | None) -> Cut:
        boundaries, logit = self.predict(ids, hidden, self.drawn(step), uniform)
        return Cut(boundaries if self.drawn(step) else boundaries.detach() > 0.5, logit)

    def loss(self, cut: Cut, lesson: Lesson, step: int) -> tuple[Tensor, Tensor | None]:
        targets = self.lesson(lesson)
        return boundary_loss(cut.logit, targets, self.config.tokenizer.double_sigmoid), targets


def boundary_loss(logit: Tensor, targets: Tensor, double_sigmoid: bool = False) -> Tensor:
    """Mean BCE of logits (B, L) against boundaries (B, L)."""
    scores = torch.sigmoid(logit) if double_sigmoid else logit
    return nn.functional.binary_cross_entropy_with_logits(scores, targets.to(scores.dtype))
