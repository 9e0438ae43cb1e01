"""magnet: dtp-gumbel with a predictor and a prior for each script."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speak_neuro.config import RunConfig, parse_priors
from speak_neuro.model.hourglass import predictor_view
from speak_neuro.systems.dtp_gumbel import DtpGumbel
from speak_neuro.systems.gumbel import GumbelBoundaries
from speak_neuro.systems.scripts import script_table
from speak_neuro.systems.segmenter import require_alphabet
from speak_neuro.text.alphabet import Alphabet


class Magnet(DtpGumbel):
    """A predictor for each script with a prior; of these a row belongs to that of most of its letters."""

    script: Tensor

    @classmethod
    def build(cls, config: RunConfig, alphabet: Alphabet | None) -> Magnet:
        return cls(config, require_alphabet(config, alphabet))

    def __init__(self, config: RunConfig, alphabet: Alphabet) -> None:
        super().__init__(config)
        priors = parse_priors(config.tokenizer.script_priors)
        self.scripts = tuple(priors)
        self.own_priors = tuple(priors.values())
        # The base's predictor serves rows of every other script.
        self.predictors = nn.ModuleList(self.new_predictor() for _ in priors)
        self.register_buffer("script", torch.from_numpy(script_table(alphabet, self.scripts)), persistent=False)

    def route(self, ids: Tensor) -> Tensor:
        """The script's number of each row, (B,); len(scripts) where no letter is of a script that has a prior."""
        if not self.scripts:
            return torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
        counts = nn.functional.one_hot(self.script[ids], len(self.scripts) + 1).sum(1)
        named, other = counts[:, :-1], counts[:, -1]
        return torch.where(named.sum(1) > 0, named.argmax(1), torch.full_like(other, len(self.scripts)))

    def predict(self, ids: Tensor, hidden: Tensor, sample: bool, uniform: Tensor | None = None) -> GumbelBoundaries:
        if not self.scripts:
            return super().predict(ids, hidden, sample, uniform)
        hidden, route = predictor_view(hidden, self.norm), self.route(ids)
        boundaries = hidden.new_zeros(ids.shape, dtype=torch.float32)
        logit = hidden.new_zeros(ids.shape, dtype=torch.float32)
        for number, predictor in enumerate([*self.predictors, self.predictor]):
            rows = torch.nonzero(route == number).squeeze(1)
            if len(rows):
                found = predictor(hidden[rows], sample, None if uniform is None else uniform[rows])
                boundaries = boundaries.index_copy(0, rows, found.boundaries)
                logit = logit.index_copy(0, rows, found.logit)
        return GumbelBoundaries(boundaries, logit)

    def priors(self, ids: Tensor, default: float) -> Tensor:
        table = torch.tensor([*self.own_priors, default], device=ids.device)
        return table[self.route(ids)]
