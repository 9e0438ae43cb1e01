"""A trained RTok tokenizer without torch: raw text to tokens and the spans they come from, by its table.

    normalise -> table and neuron (speak_neuro.table.table) -> a token opens at every spike and every U+2581 -> limits

The tokens are those of `SpeakSegmenter` on the normalised text as one unit. The object never changes: what it gives for
a text depends on the text alone, in every process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from speak_neuro.errors import SpeakError
from speak_neuro.neuron.resets import compiled_reset
from speak_neuro.rtok.text.limits import Limits, tokens_of
from speak_neuro.rtok.text.normalise import WORD, normalise_with_spans
from speak_neuro.rtok.tokenizers.speak import FRAMEWORK, CharacterTokenizer
from speak_neuro.table.learn_pieces import learn_pieces
from speak_neuro.table.table import CompiledTable
from speak_neuro.table.tokenizer import TableTokenizer
from speak_neuro.table.vocabulary import Vocabulary

Span = tuple[int, int]
VOCABULARY_SIZE = 16_384


def table_of(tokenizer: CharacterTokenizer) -> CompiledTable:
    """The table of a trained tokenizer: current and gate of each character, the reset mode in the gate."""
    current, gate = tokenizer.table().detach().float().cpu().numpy().T[:, None].copy()
    neuron = tokenizer.boundary.neuron
    rule = compiled_reset(neuron.mode).gate_rule
    if rule is not None:
        gate[:] = 1 if rule else -1
    about = {"framework": FRAMEWORK, "convention": "opens"}
    return CompiledTable(tokenizer.alphabet, current, gate, neuron.parameters_numpy(), about)


class Cutter:
    """Cuts raw text."""

    def __init__(self, table: CompiledTable, limits: Limits | None = None) -> None:
        if table.metadata.get("framework") != FRAMEWORK:
            raise SpeakError("the table is not of an RTok tokenizer; write it with write_tokenizer")
        self.tokenizer = TableTokenizer(table)
        self.limits = limits or Limits()

    def tokens(self, text: str) -> list[str]:
        """The tokens of `text`, parts of the normalised text."""
        return self.tokens_and_spans(text)[0]

    def tokens_and_spans(self, text: str) -> tuple[list[str], list[list[Span]]]:
        """The tokens of `text`, and for each of their characters the span of `text` that it comes from."""
        normalised, spans = normalise_with_spans(text)
        if not normalised:
            return [], []
        spikes = np.zeros(len(normalised), dtype=np.bool_)
        ends, _ = self.tokenizer.cuts(normalised)
        spikes[ends[:, 1] - 1] = True
        tokens = tokens_of(normalised, spikes, self.limits)
        places = iter([(start, end) for start, end in spans.tolist()])
        return tokens, [[next(places) for _ in token] for token in tokens]


def token_bytes(token: str) -> bytes:
    """The bytes of a token, its word sign a space."""
    return token.replace(WORD, " ").encode("utf-8")


def learn_vocabulary(
    cutter: Cutter, texts: Iterable[str], size: int = VOCABULARY_SIZE, whole: bool = False
) -> Vocabulary:
    """`size` ids, the 256 bytes included, out of texts: pieces of their tokens, or the most frequent `whole` ones."""
    tokens = (token_bytes(token) for text in texts for token in cutter.tokens(text))
    if whole:
        return Vocabulary.build(Counter(tokens), size)
    return learn_pieces(([token] for token in tokens), size, unit="tokens")
