"""A system under comparison: the language model with the module that cuts its text."""

from __future__ import annotations

from torch import Tensor, nn

from speak_neuro.config import SYSTEMS, RunConfig
from speak_neuro.model.hourglass import Hourglass, HourglassConfig
from speak_neuro.supervision.knob import Knob, build_knob
from speak_neuro.supervision.losses import Mixes
from speak_neuro.systems.segmenter import Segmentation, Segmenter, build_segmenter
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.tokenizer.module import SpeakTokenizer


class System(nn.Module):
    """All that is trained: the language model and what cuts the text for it.

    For SPEAK that is `tokenizer` and the `mixes` of its loss; for the systems it is compared with, `segmenter`.
    """

    tokenizer: SpeakTokenizer
    mixes: Mixes
    segmenter: Segmenter
    rate: Knob | None
    """What holds the rate of boundaries while a run with a target shortening factor trains."""

    def __init__(self, config: RunConfig, vocabulary: int, alphabet: Alphabet | None = None) -> None:
        """`alphabet` is needed where a system knows characters: whitespace and magnet."""
        super().__init__()
        self.config = config
        m = config.model
        plain = not SYSTEMS.load(config.tokenizer.kind).shortens  # the same layers, all at full resolution
        self.language_model = Hourglass(
            HourglassConfig(
                vocabulary=vocabulary,
                width=m.width,
                heads=m.heads,
                inner=m.inner,
                pre_layers=m.pre_layers + m.shortened_layers + m.post_layers if plain else m.pre_layers,
                shortened_layers=0 if plain else m.shortened_layers,
                post_layers=0 if plain else m.post_layers,
                dropout=m.dropout,
                attention_dropout=m.attention_dropout,
                norm=m.norm,  # type: ignore[arg-type]
            )
        )
        if self.is_speak:
            self.tokenizer = SpeakTokenizer(config, vocabulary)
            t = config.training
            self.mixes = Mixes(t.fire_mix, t.rest_mix, t.learn_mixes)
        else:
            self.segmenter = build_segmenter(config, alphabet)
        self.rate = build_knob(config)

    @property
    def is_speak(self) -> bool:
        return self.config.is_speak

    @property
    def boundary_module(self) -> SpeakTokenizer | Segmenter:
        """Whatever cuts the text."""
        return self.tokenizer if self.is_speak else self.segmenter

    def segment(self, ids: Tensor, hidden: Tensor) -> Segmentation:
        """Where inference ends tokens: ids (B, L) and their pre-layer states (B, L, D)."""
        if not self.is_speak:
            return self.segmenter.segment(ids, hidden)
        found = self.tokenizer(ids, hidden if self.tokenizer.needs_hidden else None)
        hard = self.tokenizer.effective_gate(found.gate_logit) > 0
        return Segmentation(found.spikes.bool(), hard, self.tokenizer.confidence(found))
