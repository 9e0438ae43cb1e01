"""The tokenizers that SPEAK is compared with (paper Table 1), in front of the same language model.

    vanilla       every character is a token; the model's layers all run at full resolution
    fixed         b_t = [t mod n = n - 1], counted from the window's start
    whitespace    b_t = [c_t is white space]
    dtp-entropy   b_t = [e_t > 0], e the predictor's logit, taught the peaks of the model's own entropy
    dtp-unigram   the same, taught the ends of a Unigram tokenizer's pieces
    dtp-gumbel    b_t sampled in training, taught by the language model and a binomial prior (systems.gumbel)
    magnet        the same with a predictor and a prior for each script

e_t = Linear(GELU(Linear(h_t))) with h the language model's pre-layers, which the predictor's loss trains too. b_t = 1
closes the token whose last character is t. B rows, L positions, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from speak_neuro.config import SAMPLED, RunConfig, parse_priors
from speak_neuro.model.hourglass import predictor_view
from speak_neuro.systems.gumbel import GumbelBoundaries, GumbelPredictor
from speak_neuro.systems.scripts import script_table
from speak_neuro.text.alphabet import Alphabet

SUPERVISED = ("dtp-entropy", "dtp-unigram")


class Segmentation(NamedTuple):
    """Where a system ends tokens, as inference does."""

    boundaries: Tensor
    """(B, L) bool."""
    hard: Tensor | None = None
    """(B, L) bool, SPEAK only: where a spike would reset the potential hard."""


class EveryCharacter(nn.Module):
    """vanilla."""

    needs_hidden = False

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        return torch.ones_like(ids, dtype=torch.bool)


class FixedLength(nn.Module):
    """fixed: a boundary at every n-th position."""

    needs_hidden = False

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        return ((positions + 1) % self.length == 0).expand(ids.shape)


class WhiteSpace(nn.Module):
    """whitespace: a boundary at each white-space character. In a run of them each is a boundary, since what follows is
    not known yet."""

    needs_hidden = False
    is_space: Tensor

    def __init__(self, alphabet: Alphabet) -> None:
        super().__init__()
        spaces = torch.tensor([False, *(character.isspace() for character in alphabet.characters)])
        self.register_buffer("is_space", spaces, persistent=False)

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        return self.is_space[ids]


class Predictor(nn.Module):
    """dtp-*: boundaries from the language model's pre-layers."""

    needs_hidden = True

    def __init__(self, width: int, inner: int, temperature: float, sampled: bool, norm: str = "post") -> None:
        super().__init__()
        self.predictor = GumbelPredictor(width, inner, temperature)
        self.sampled = sampled
        self.norm = norm

    def predict(self, ids: Tensor, hidden: Tensor, sample: bool, uniform: Tensor | None = None) -> GumbelBoundaries:
        """Boundaries as numbers, with a gradient when they are sampled (from `uniform`, or drawn), and logits."""
        return self.predictor(predictor_view(hidden, self.norm), sample, uniform)  # type: ignore[no-any-return]

    def priors(self, ids: Tensor, default: float) -> Tensor:
        """The prior of each row, (B,)."""
        return torch.full((len(ids),), default, device=ids.device)

    def forward(self, ids: Tensor, hidden: Tensor) -> Tensor:
        return self.predict(ids, hidden, self.sampled).boundaries.detach() > 0.5


class ScriptPredictor(Predictor):
    """magnet: a predictor for each script with a prior; of these a row belongs to that of most of its letters."""

    script: Tensor

    def __init__(
        self,
        width: int,
        inner: int,
        temperature: float,
        sampled: bool,
        alphabet: Alphabet,
        priors: dict[str, float],
        norm: str = "post",
    ) -> None:
        super().__init__(width, inner, temperature, sampled, norm)
        self.scripts = tuple(priors)
        self.own_priors = tuple(priors.values())
        # The base's predictor serves rows of every other script.
        self.predictors = nn.ModuleList(GumbelPredictor(width, inner, temperature) for _ in priors)
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


Segmenter = EveryCharacter | FixedLength | WhiteSpace | Predictor


def build_segmenter(config: RunConfig, alphabet: Alphabet | None) -> Segmenter:
    """The segmenter of a configuration whose tokenizer is not SPEAK's."""
    tokenizer, model = config.tokenizer, config.model
    if tokenizer.kind == "vanilla":
        return EveryCharacter()
    if tokenizer.kind == "fixed":
        return FixedLength(tokenizer.fixed_length)
    if tokenizer.kind in ("whitespace", "magnet") and alphabet is None:
        raise ValueError(f"alphabet is None; allowed for {tokenizer.kind}: the run's alphabet")
    if tokenizer.kind == "whitespace":
        assert alphabet is not None
        return WhiteSpace(alphabet)
    sampled = tokenizer.kind in SAMPLED and tokenizer.sample_at_evaluation
    sizes = (model.width, model.inner, tokenizer.predictor_temperature)
    if tokenizer.kind == "magnet":
        assert alphabet is not None
        priors = parse_priors(tokenizer.script_priors)
        return ScriptPredictor(*sizes, sampled, alphabet, priors, model.norm)
    return Predictor(*sizes, sampled, model.norm)
