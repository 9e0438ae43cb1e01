"""The tokenizer as an object of transformers: what its ids mean, in every process; offsets, words, AutoTokenizer.

What transformers asks of any tokenizer is in test_hf_contract.
"""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_fixtures import rtok_for_transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from rtok_text_fixtures import SENTENCES, lively_tokenizer

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'speak-neuro[hf]'")

from transformers import AutoTokenizer, DataCollatorWithPadding

from speak_neuro.corpus.reader import embedded_text
from speak_neuro.inference.frozen_tokenizer import SPECIALS
from speak_neuro.rtok.text.normalise import normalise
from speak_neuro.rtok.tokenizers.speak import SpeakSegmenter
from speak_neuro.table.vocabulary import Vocabulary
from speak_neuro.text.byte_alphabet import raw_bytes

TEXTS = [*SENTENCES, "½ ﬁne e\u0301t\u200be", "a <s> b </s>", "\ud800 half", "😀 new", ""]
UNSEEN = ["quite new words", "words of another kind", "ganz andere Wörter", "совсем новые слова"]


@pytest.fixture(scope="module", params=["tokens", "whole"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("made")
    return rtok_for_transformers(folder, unit=request.param)


def spoken(text: str) -> str:
    """What decoding gives: normalised text, words with spaces between them."""
    return normalise(text).replace("▁", " ").removeprefix(" ")


def written(units: list[list[str]]) -> list[list[str]]:
    """Tokens of the segmenter as a tokenizer gives them."""
    return [[token.replace("▁", " ") for token in unit] for unit in units]


def test_tokens_are_the_segmenter_s(tokenizer: Any) -> None:
    units = [normalise(text) for text in TEXTS if normalise(text)]
    (wanted,) = SpeakSegmenter(lively_tokenizer()).segment([units], "en")
    assert [tokenizer.tokens(text) for text in TEXTS if normalise(text)] == written(wanted)
    assert tokenizer.tokens("") == tokenizer.tokenize("") == []


@pytest.mark.parametrize("mode", ["hard", "soft", "none"])
def test_every_reset_mode_has_a_table(mode: str, tmp_path: Path) -> None:
    made = rtok_for_transformers(tmp_path, mode=mode)
    (wanted,) = SpeakSegmenter(lively_tokenizer(mode)).segment([list(map(normalise, SENTENCES))], "en")
    assert [made.tokens(text) for text in SENTENCES] == written(wanted)


def test_pieces_are_fewer_than_bytes(tmp_path: Path) -> None:
    """What no whole token covers is pieces, and one id still never holds parts of two tokens."""
    texts = [line for line in embedded_text("en").split("\n") if line]
    held, learned = texts[:40], texts[40:200]
    lengths = {}
    for unit in ("whole", "tokens"):
        made = rtok_for_transformers(tmp_path / unit, learned, 2000, unit)
        lengths[unit] = sum(len(made(text)["input_ids"]) for text in held)
        for text in held[:5]:
            names = [raw_bytes(name) for name in made.tokenize(text)]
            tokens = [token.encode() for token in made.tokens(text)]
            ends = set(np.cumsum(list(map(len, names))).tolist())
            assert b"".join(names) == b"".join(tokens)
            assert ends >= set(np.cumsum(list(map(len, tokens))).tolist())
    assert lengths["tokens"] < 0.8 * lengths["whole"]


def test_the_vocabulary_is_the_most_frequent_tokens(tmp_path: Path) -> None:
    texts = [*SENTENCES, *SENTENCES[:2]]
    (tokens,) = SpeakSegmenter(lively_tokenizer()).segment([list(map(normalise, texts))], "en")
    counts = Counter(token.replace("▁", " ").encode() for unit in tokens for token in unit)
    best = sorted((t for t in counts if len(t) > 1), key=lambda t: (-counts[t], t))[:10]
    made = rtok_for_transformers(tmp_path, texts, 266, "whole")
    assert len(made) == made.vocab_size == 4 + 256 + 10
    assert [made.decode([260 + place]) for place in range(10)] == [token.decode().removeprefix(" ") for token in best]
    assert Vocabulary.load(tmp_path / "speak_vocabulary.safetensors").tokens == tuple(best)


@given(st.text(st.one_of(st.characters(), st.sampled_from("aé e\u0301\u200b▁<s>")), max_size=40))
@settings(max_examples=200)
def test_every_text_has_ids_and_comes_back(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert min(ids, default=4) >= len(SPECIALS)
    assert tokenizer.decode(ids) == spoken(text)


def test_a_token_that_is_written_like_a_special_one_is_a_piece(tmp_path: Path) -> None:
    made = rtok_for_transformers(tmp_path, ["<s> </s> <unk> <pad>"] * 3, unit="whole")
    plain = made.native.encode("<s></s>")
    ids = made("<s></s>", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert ids == [len(SPECIALS) + number for number in plain.tolist()]
    assert made.decode(ids) == "<s></s>"
    assert made("<s></s>", add_special_tokens=False)["input_ids"] == [0, 2]
    assert sorted(made.get_vocab().values()) == list(range(len(made)))


def use(tokenizer: Any) -> None:
    for text in [*TEXTS, *UNSEEN]:
        tokenizer(text, return_offsets_mapping=True)
        tokenizer.decode(tokenizer(text)["input_ids"])
    tokenizer(UNSEEN, padding=True, truncation=True, max_length=8, return_tensors="np")


def test_nothing_changes_with_use(tokenizer: Any) -> None:
    """So a cache's key holds: `datasets` finds what an earlier map made."""
    fingerprint = pytest.importorskip("datasets.fingerprint", reason="datasets is not installed")
    before = fingerprint.Hasher.hash(tokenizer), pickle.dumps(tokenizer), len(tokenizer), tokenizer.get_vocab()
    use(tokenizer)
    assert (
        fingerprint.Hasher.hash(tokenizer),
        pickle.dumps(tokenizer),
        len(tokenizer),
        tokenizer.get_vocab(),
    ) == before


def meanings(rows: list[list[int]], texts: list[str], tokenizer: Any) -> None:
    assert [tokenizer.decode(row, skip_special_tokens=True) for row in rows] == [spoken(text) for text in texts]
    assert rows == [tokenizer(text)["input_ids"] for text in texts]


def test_two_processes_of_map(tokenizer: Any, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = datasets.Dataset.from_dict({"text": UNSEEN})
    mapped = rows.map(lambda row: tokenizer(row["text"]), num_proc=2, new_fingerprint="two-processes")
    meanings(list(mapped["input_ids"]), UNSEEN, tokenizer)


def test_workers_of_a_loader(tokenizer: Any) -> None:
    from torch.utils.data import DataLoader

    def collate(texts: list[str]) -> list[list[int]]:
        return [tokenizer(text)["input_ids"] for text in texts]

    loader = DataLoader(UNSEEN, batch_size=1, num_workers=2, collate_fn=collate)  # type: ignore[arg-type]
    meanings([row for batch in loader for row in batch], UNSEEN, tokenizer)


def test_offsets(tokenizer: Any) -> None:
    for text in TEXTS:
        found = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, split_special_tokens=True)
        spans = found["offset_mapping"]
        assert len(spans) == len(found["input_ids"])
        for (start, end), number in zip(spans, found["input_ids"], strict=True):
            assert 0 <= start <= end <= len(text)
            piece = tokenizer.decode([number])
            assert "\ufffd" in piece or piece in spoken(text[start:end])


def test_words(tokenizer: Any) -> None:
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
    assert words["word_ids"][1, :2].tolist() == [-1, 0]
    assert set(words["word_ids"][0].tolist()) == {-1, 0, 1}
    assert (words["attention_mask"].sum(1) == (words["input_ids"] != 1).sum(1)).all()


def test_auto_tokenizer(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    tokenizer.save_pretrained(tmp_path / "saved")
    again: Any = AutoTokenizer.from_pretrained(tmp_path / "saved", trust_remote_code=True, truncation_side="left")
    assert type(again).__name__ == "SpeakTokenizerHF"
    assert [again(text)["input_ids"] for text in TEXTS] == ids
    assert again.get_vocab() == tokenizer.get_vocab()
    text = SENTENCES[0]
    cut = again(text, truncation=True, max_length=5)["input_ids"]
    assert cut == [0, *again(text, add_special_tokens=False)["input_ids"][-3:], 2]
    batch = DataCollatorWithPadding(again)([again(text) for text in TEXTS])
    assert batch["input_ids"].shape == batch["attention_mask"].shape
