"""The tokenizer as its users want it: strings in, tokens out, nothing lost.

speak = Speak.load("runs/mine")
speak.tokens("a line of text")          # a list of strings that joined give the line back
stream = speak.stream()
stream.feed("a li"), stream.feed("ne"), stream.flush()
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from speak_neuro.common.device import choose_device
from speak_neuro.errors import SpeakError
from speak_neuro.inference.engine import BoundaryEngine, Cursor, Trace
from speak_neuro.inference.generation import Generation, Sampling
from speak_neuro.inference.views import speak_view
from speak_neuro.pictures.picture import Picture
from speak_neuro.systems.run_folder import load_system, read_run
from speak_neuro.text import segments
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.text.stream import TokenStream

PIECE = 1 << 15
"""Characters whose features are in memory at once when only boundaries are asked for."""


class Speak:
    """A trained tokenizer."""

    def __init__(self, engine: BoundaryEngine, alphabet: Alphabet) -> None:
        self.engine = engine
        self.alphabet = alphabet

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "cpu") -> Speak:
        """The tokenizer of a run folder, on `device`: auto, cpu, cuda or cuda:N."""
        run = read_run(folder)
        if run.record.get("framework") == "rtok":
            raise SpeakError(
                f"{folder}: an RTok tokenizer, whose text is normalised first and whose spikes open tokens; load it "
                "with speak_neuro.rtok.tokenizers.speak.CharacterTokenizer"
            )
        return cls(BoundaryEngine(load_system(run, choose_device(device)), run.config), run.alphabet)

    def trace(self, text: str) -> Trace:
        """The neuron's whole run over `text`, features included: D numbers for each character."""
        return self.engine.run(self.alphabet.encode(text))

    def spikes(self, text: str, hard_only: bool = False) -> npt.NDArray[np.bool_]:
        """Where tokens of `text` end, (L,), with `hard_only` where contextual ranges do, at hard resets:
        `trace(text).spikes`, in memory that does not grow with the features.
        """
        ids = self.alphabet.encode(text)
        cursor = self.engine.start()
        traces = (cursor.advance(ids[start : start + PIECE]) for start in range(0, len(ids), PIECE))
        pieces = [ended(trace, hard_only) for trace in traces]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.bool_)

    def spans(self, text: str, unit: str = "character", hard_only: bool = False) -> npt.NDArray[np.int64]:
        """(n, 2) half-open spans [start, end) that partition `text`, in characters or in UTF-8 bytes.

        They are SPEAK's tokens, with `hard_only` the contextual ranges between hard resets.
        """
        if unit not in ("character", "byte"):
            raise ValueError(f"unit is {unit!r}; allowed: character, byte")
        found = segments.spans(self.spikes(text, hard_only))
        return found if unit == "character" else segments.byte_spans(text, found)

    def tokens(self, text: str) -> list[str]:
        """The tokens of `text`; joined they are `text`."""
        return segments.tokens(text, self.spikes(text))

    def running(self, hard_only: bool = False) -> Callable[[str], npt.NDArray[np.bool_]]:
        """A function that gives the `spikes` of a text's next characters, call after call."""
        cursor = self.engine.start()
        return lambda text: ended(cursor.advance(self.alphabet.encode(text)), hard_only)

    def stream(self) -> TokenStream:
        """A stream at the beginning of a text."""
        return TokenStream(self.engine.start, self.advance)

    def advance(self, cursor: Cursor, piece: str, hard_only: bool = False) -> tuple[list[int], Cursor]:
        """Where tokens, or contextual ranges, end in the next `piece`, in characters of it; the cursor behind it."""
        found = ended(cursor.advance(self.alphabet.encode(piece)), hard_only)
        return (np.flatnonzero(found) + 1).tolist(), cursor

    def show(self, text: str, name: str = "SPEAK", entropy: bool = True) -> Picture:
        """A picture of `text`: its tokens, the potential behind them, and the language model's entropy."""
        return Picture([speak_view(self.engine, self.alphabet, text, name, entropy)])

    def generate(
        self, prompt: str, characters: int = 200, sampling: Sampling | None = None, context: int | None = None
    ) -> Iterator[str]:
        """Go on with `prompt`: the tokens of the next `characters` characters, each as it closes.

        The first one is the rest of the token with which the prompt ends. `context` is the most characters that the
        language model sees at once (default: a training window).
        """
        for _, token in self.generation([prompt], sampling, context).run(characters):
            yield token

    def generate_all(
        self,
        prompts: Sequence[str],
        characters: int = 200,
        sampling: Sampling | None = None,
        context: int | None = None,
    ) -> list[list[str]]:
        """`generate` of several prompts in one batch."""
        tokens: list[list[str]] = [[] for _ in prompts]
        for row, token in self.generation(prompts, sampling, context).run(characters):
            tokens[row].append(token)
        return tokens

    def generation(
        self, prompts: Sequence[str], sampling: Sampling | None = None, context: int | None = None
    ) -> Generation:
        """The state of texts that grow from `prompts`."""
        context = self.engine.window if context is None else context
        return Generation(self.engine, self.alphabet, prompts, sampling or Sampling(), context)


def ended(trace: Trace, hard_only: bool) -> npt.NDArray[np.bool_]:
    """The spikes of a trace, with `hard_only` those that reset hard."""
    return trace.spikes & (trace.gate_logit > 0) if hard_only else trace.spikes
