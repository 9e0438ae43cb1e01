"""A vocabulary file of either kind: whole tokens, or pieces."""

from __future__ import annotations

import os

from speak_neuro.common.arrays import kind_of
from speak_neuro.table.pieces import Pieces
from speak_neuro.table.vocabulary import Vocabulary


def load_vocabulary(path: str | os.PathLike[str]) -> Vocabulary:
    """Read and check a vocabulary; every departure is one SpeakError line naming the file and the field."""
    kind = Pieces if kind_of(path) == Pieces.FORMAT else Vocabulary
    return kind.load(path)
