"""The text that a trained run is scored on or timed with: its own data, or another text, every file read once."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from records import dataset_name

from speak_neuro.corpus.reader import read_text
from speak_neuro.corpus.splits import PARTS, digest, read_splits
from speak_neuro.errors import SpeakError

if TYPE_CHECKING:
    from speak_neuro.systems.run_folder import Run


@dataclasses.dataclass(frozen=True)
class Text:
    """A text to score."""

    dataset: str
    sha256: str
    """Of the whole of the data, as in the run's record when it is the run's own."""
    text: str


class Texts:
    """The text for each run: `arguments` hold `text`, a file scored whole, or `data` and `part`."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.read: dict[str, tuple[str, tuple[str, ...]]] = {}

    def of(self, run: Run) -> Text:
        if self.arguments.text is not None:
            return self.whole(self.arguments.text)
        recorded = run.record.get("data", {})
        source = str(self.arguments.data) if self.arguments.data is not None else str(recorded.get("source", ""))
        embedded = self.arguments.data is None and source == "embedded en"
        if not embedded and not Path(source).exists():
            raise SpeakError(
                f"{run.folder}: its text {source or 'is not recorded and'} is not here; say where it is with --data, "
                "or give another text with --text"
            )
        if source not in self.read:
            parts = tuple(read_splits(None if embedded else Path(source)))
            self.read[source] = digest(parts), parts
        sha256, parts = self.read[source]
        own = recorded.get("sha256") in (None, sha256)
        if self.arguments.data is None and not own:
            raise SpeakError(f"{run.folder}: {source} has changed since the run was trained; give a text with --data")
        name = dataset_name(recorded) if own and recorded else dataset_name({"source": source})
        part = self.arguments.part
        text = parts[PARTS.index(part)]
        limit = getattr(run.config.training, "test_characters", 0)
        if own and part == "test" and limit:
            text = text[:limit]
        return Text(name if part == "test" else f"{name} ({part})", sha256, text)

    def whole(self, path: Path) -> Text:
        if str(path) not in self.read:
            text = read_text(path)
            self.read[str(path)] = digest([text]), (text,)
        sha256, (text,) = self.read[str(path)]
        return Text(dataset_name({"source": str(path)}), sha256, text)
