"""dtp-gumbel: boundaries drawn in training, taught by the language model and a binomial prior (systems.gumbel).

    L = -ln Binomial(sum b; L, prior) / L,  and L_LM reaches e through the drawn b

With `exemplar_steps` the first steps teach the exemplar's boundaries, as dtp-unigram: from the first step on random
boundaries, a language model can learn to do without its tokens, and then no gradient reaches the predictor
(experiments/LOG.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from speak_neuro.config import RunConfig
from speak_neuro.systems.gumbel import binomial_prior_loss
from speak_neuro.systems.predictor import Predictor
from speak_neuro.systems.segmenter import Cut, Lesson


class DtpGumbel(Predictor):
    """One predictor and one prior."""

    samples = True

    @classmethod
    def needs_exemplar(cls, config: RunConfig) -> bool:
        return config.training.exemplar_steps > 0

    def drawn(self, step: int) -> bool:
        return step >= self.config.training.exemplar_steps

    def priors(self, ids: Tensor, default: float) -> Tensor:
        """The prior of each row, (B,)."""
        return torch.full((len(ids),), default, device=ids.device)

    def loss(self, cut: Cut, lesson: Lesson, step: int) -> tuple[Tensor, Tensor | None]:
        if not self.drawn(step):
            return super().loss(cut, lesson, step)
        target = self.config.training.target_sf
        priors = self.priors(lesson.ids, 1 / target if target else self.config.tokenizer.prior)
        return binomial_prior_loss(cut.boundaries, lesson.prior(priors)), None
