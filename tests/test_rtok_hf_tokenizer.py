"""The tokenizer as an object of transformers: offsets, pairs, words, padding, AutoTokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from rtok_text_fixtures import SENTENCES, lively_tokenizer

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'speak-neuro[hf]'")

from transformers import AutoTokenizer, DataCollatorWithPadding

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.hf_tokenizer import SPECIALS, RTokTokenizer, write_tokenizer
from speak_neuro.rtok.normalise import normalise
from speak_neuro.rtok.speak import SpeakSegmenter

TEXTS = [*SENTENCES, "½ ﬁne e\u0301t\u200be", "a <s> b </s>", ""]


@pytest.fixture
def tokenizer(tmp_path: Path) -> RTokTokenizer:
    return write_tokenizer(lively_tokenizer(), tmp_path / "made")


def test_tokens_are_the_segmenter_s(tokenizer: RTokTokenizer) -> None:
    units = [normalise(text) for text in TEXTS if normalise(text)]
    (wanted,) = SpeakSegmenter(lively_tokenizer()).segment([units], "en")
    assert [tokenizer.tokenize(text) for text in TEXTS if normalise(text)] == wanted
    assert tokenizer.tokenize("") == []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == 0
        assert ids[-1] == 2
        assert min(ids[1:-1], default=4) >= 4
        assert tokenizer.decode(ids[1:-1]) == normalise(text).replace("▁", " ").strip(" ")


def test_literal_specials_are_text(tokenizer: RTokTokenizer) -> None:
    ids = tokenizer("<s> <pad></s> <unk>", add_special_tokens=False)["input_ids"]
    assert min(ids) >= len(SPECIALS)
    assert tokenizer.decode(ids) == "<s> <pad></s> <unk>"


def test_offsets(tokenizer: RTokTokenizer) -> None:
    for text in TEXTS:
        found = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        spans = found["offset_mapping"]
        tokens = tokenizer.tokenize(text)
        assert len(spans) == len(found["input_ids"]) == len(tokens)
        for (start, end), token in zip(spans, tokens, strict=True):
            assert 0 <= start <= end <= len(text)
            assert token.strip("▁") in normalise(text[start:end])


def test_pairs_words_and_padding(tokenizer: RTokTokenizer) -> None:
    pair = tokenizer("a b", "c d e", return_special_tokens_mask=True)
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a b", "c d e"))
    assert pair["input_ids"] == [0, *first, 2, 2, *second, 2]
    assert pair["special_tokens_mask"] == [1, *[0] * len(first), 1, 1, *[0] * len(second), 1]
    words = tokenizer(
        [["The", "committee"], ["x"]],
        is_split_into_words=True,
        padding=True,
        return_tensors="pt",
        return_offsets_mapping=True,
        return_word_ids=True,
    )
    shape = tuple(words["input_ids"].shape)
    assert tuple(words["attention_mask"].shape) == tuple(words["word_ids"].shape) == shape
    assert tuple(words["offset_mapping"].shape) == (*shape, 2)
    assert words["input_ids"][1, -1] == 1
    assert words["word_ids"][1].tolist()[:3] == [-1, 0, -1] or words["word_ids"][1].tolist()[1] == 0
    assert set(words["word_ids"][0].tolist()) == {-1, 0, 1}
    assert (words["attention_mask"].sum(1) == (words["input_ids"] != 1).sum(1)).all()


def test_truncation(tokenizer: RTokTokenizer) -> None:
    long, short = "the committee visited the committee", "a b"
    cut = tokenizer(long, short, truncation=True, max_length=9)["input_ids"]
    whole = tokenizer(short, add_special_tokens=False)["input_ids"]
    assert len(cut) == 9
    assert cut[-1] == 2
    assert cut[-1 - len(whole) : -1] == whole
    first = tokenizer(long, short, truncation="only_first", max_length=9)["input_ids"]
    assert first[-1 - len(whole) : -1] == whole
    with pytest.raises(SpeakError, match="max_length is 3"):
        tokenizer(long, short, truncation=True, max_length=3)
    with pytest.raises(SpeakError, match="stride"):
        tokenizer(long, stride=2)
    with pytest.raises(SpeakError, match="allowed: a string"):
        tokenizer([1, 2])


def test_growing_and_frozen(tokenizer: RTokTokenizer) -> None:
    before = len(tokenizer)
    ids = tokenizer("visited")["input_ids"]
    assert len(tokenizer) > before
    assert tokenizer("visited")["input_ids"] == ids
    tokenizer.frozen = True
    size = len(tokenizer)
    assert SPECIALS.index("<unk>") in tokenizer("zzzz qqq")["input_ids"]
    assert len(tokenizer) == size == tokenizer.vocab_size


def test_auto_tokenizer(tokenizer: RTokTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = tmp_path / "modules"
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(modules))
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    assert type(again).__name__ == "RTokTokenizer"
    again.frozen = True
    assert [again(text)["input_ids"] for text in TEXTS] == ids
    assert again.get_vocab() == tokenizer.get_vocab()
    batch = DataCollatorWithPadding(again)([again(text) for text in TEXTS])
    assert batch["input_ids"].shape == batch["attention_mask"].shape


def test_damaged_files(tokenizer: RTokTokenizer, tmp_path: Path) -> None:
    (tmp_path / "made" / "speak_alphabet.json").write_text("{", encoding="utf-8")
    with pytest.raises(SpeakError, match="not valid JSON"):
        RTokTokenizer.from_pretrained(tmp_path / "made")
