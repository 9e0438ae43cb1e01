"""Where the units of a text end: by a table, by the network itself, or by RTok's table on normalised text.

    table      `linear` and `convolution` runs: numpy and compiled code, no torch
    network    every other encoder: torch, in one canonical order (`speak_neuro.inference.engine`)
    rtok       RTok's: text is normalised first, spikes open tokens, words and lengths cut too

What each computes depends on its text alone, so all are frozen, can be pickled, and work in threads and after a fork.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from speak_neuro.common.array_types import Int64Array
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.text.limits import MOST_AHEAD, Limits, tokens_of
from speak_neuro.rtok.text.normalise import WORD, normalise_with_spans
from speak_neuro.table.table import CompiledTable
from speak_neuro.table.tokenizer import TableTokenizer
from speak_neuro.text import segments

if TYPE_CHECKING:
    from typing_extensions import Self

    from speak_neuro.inference.speak import Speak
    from speak_neuro.rtok.tokenizers.speak import CharacterTokenizer
    from speak_neuro.systems.run_folder import Run


TABLE = "speak_table.safetensors"
NETWORK = "speak_network"


class Boundaries(Protocol):
    """What cuts a text."""

    kind: ClassVar[str]

    def prepare(self, text: str) -> tuple[str, Int64Array | None]:
        """The text that is cut, and the span (L, 2) of `text` that each of its characters comes from; None: itself."""
        ...

    def restore(self, text: str) -> str:
        """A prepared text for a reader."""
        ...

    def spans(self, text: str, unit: str = "character", hard_only: bool = False) -> Int64Array:
        """(n, 2) spans of the units of a prepared text: tokens, or with `hard_only` contextual ranges."""
        ...

    def start(self) -> Any:
        """The state at the beginning of a text that arrives in pieces."""
        ...

    def advance(self, state: Any, piece: str, hard_only: bool) -> tuple[list[int], Any]:
        """Where units end in the next piece, in characters of it, and the state behind it."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load` of the same kind reads."""
        ...


class _AsItIs:
    """What cuts a text as it is."""

    def prepare(self, text: str) -> tuple[str, Int64Array | None]:
        return text, None

    def restore(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class _ByTable:
    """What cuts by a table, which is the whole of its file."""

    table: TableTokenizer

    def save(self, folder: Path) -> None:
        self.table.table.save(folder / TABLE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        return cls(TableTokenizer(CompiledTable.read(folder / TABLE)))


@dataclass(frozen=True)
class TableBoundaries(_AsItIs, _ByTable):
    """By tables over characters."""

    kind: ClassVar[str] = "table"

    def spans(self, text: str, unit: str = "character", hard_only: bool = False) -> Int64Array:
        return self.table.spans(text, unit, hard_only)

    def start(self) -> Any:
        return None

    def advance(self, state: Any, piece: str, hard_only: bool) -> tuple[list[int], Any]:
        return self.table.advance(state, piece, hard_only)


@dataclass(frozen=True)
class NetworkBoundaries(_AsItIs):
    """By the trained network."""

    speak: Speak
    run: Run
    kind: ClassVar[str] = "network"

    def spans(self, text: str, unit: str = "character", hard_only: bool = False) -> Int64Array:
        return self.speak.spans(text, unit, hard_only)

    def start(self) -> Any:
        return self.speak.engine.start()

    def advance(self, state: Any, piece: str, hard_only: bool) -> tuple[list[int], Any]:
        return self.speak.advance(state, piece, hard_only)

    def save(self, folder: Path) -> None:
        from speak_neuro.systems.run_folder import save_model, write_config

        kept: dict[str, Any] = {
            key: self.run.record[key] for key in ("data", "versions", "commit") if key in self.run.record
        }
        write_config(folder / NETWORK, self.run.config, self.run.alphabet, kept)
        save_model(folder / NETWORK, self.speak.engine.system)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> NetworkBoundaries:
        """Read what `save` wrote, or a run folder."""
        from speak_neuro.inference.speak import Speak
        from speak_neuro.systems.run_folder import read_run

        here = folder / NETWORK if (folder / NETWORK).is_dir() else folder
        return cls(Speak.load(here, device), read_run(here))


@dataclass(frozen=True)
class RTokBoundaries(_ByTable):
    """By RTok's table, over normalised text: a spike, a word or the longest token opens the next.

    With a look-ahead of a, the table reads a times U+2581 after the text, and the spike of step t + a is about the
    character t.
    """

    limits: Limits = Limits()
    kind: ClassVar[str] = "rtok"

    @classmethod
    def of(cls, tokenizer: CharacterTokenizer) -> RTokBoundaries:
        """Of a trained tokenizer whose currents are sums over single characters; another is refused."""
        from speak_neuro.inference.compile_table import compile_table
        from speak_neuro.rtok.tokenizers.speak import FRAMEWORK

        about = {"framework": FRAMEWORK, "convention": "opens", "look_ahead": tokenizer.look_ahead}
        return cls(TableTokenizer(compile_table(tokenizer.system(), tokenizer.config, tokenizer.alphabet, about)))

    @property
    def look_ahead(self) -> int:
        """a; tables of before have none."""
        found = self.table.table.metadata.get("look_ahead", 0)
        if type(found) is not int or not 0 <= found <= MOST_AHEAD:
            raise SpeakError(f"{TABLE}: look_ahead is {found!r}; allowed: 0 to {MOST_AHEAD}")
        return found

    def prepare(self, text: str) -> tuple[str, Int64Array | None]:
        normalised, sources = normalise_with_spans(text)
        return normalised.replace(WORD, " "), sources

    def restore(self, text: str) -> str:
        return text.removeprefix(" ")

    def spans(self, text: str, unit: str = "character", hard_only: bool = False) -> Int64Array:
        text = text.replace(" ", WORD)  # a space is nothing else in normal form
        ahead = self.look_ahead
        fired = np.zeros(len(text) + ahead, dtype=np.bool_)
        cuts, _ = self.table.cuts(text + WORD * ahead, None, hard_only)
        fired[cuts[:, 1] - 1] = True
        fired = fired[ahead:]
        if hard_only:  # a range goes on over words: only a hard reset forgets what came before
            found = segments.spans(fired, "opens")
        else:
            sizes = np.array([len(token) for token in tokens_of(text, fired, self.limits)], dtype=np.int64)
            ends = np.cumsum(sizes)
            found = np.stack([ends - sizes, ends], axis=1)
        return found if unit == "character" else segments.byte_spans(text.replace(WORD, " "), found)

    def start(self) -> Any:
        raise SpeakError("an RTok tokenizer normalises whole texts: it has no stream; encode line by line")

    def advance(self, state: Any, piece: str, hard_only: bool) -> tuple[list[int], Any]:
        raise SpeakError("an RTok tokenizer has no stream")
