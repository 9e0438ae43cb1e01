"""What transformers' common tokenizer tests ask of every tokenizer, asked of ours.

Each test is passed by transformers' own slow tokenizers too (ByT5, Canine): they say what the right answer is. What a
sequence has to be is worked out here from the ids of its parts.
"""

from __future__ import annotations

import copy
import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_fixtures import rtok_for_transformers
from rtok_text_fixtures import SENTENCES

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'speak-neuro[hf]'")

from transformers import AddedToken, ByT5Tokenizer, CanineTokenizer

from speak_neuro.api.hf import SpeakTokenizerHF
from speak_neuro.errors import SpeakError

LONG, SHORT = "the committee visited the old committee again", "a bird , it is"
OURS = ("rtok",)
STOCK = ("byt5", "canine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rtok")
    rtok_for_transformers(path)
    return path


def maker(name: str, folder: Path) -> Any:
    """A function that makes the tokenizer with the given settings."""
    if name == "rtok":
        return lambda **settings: SpeakTokenizerHF.from_pretrained(folder, **settings)
    return ByT5Tokenizer if name == "byt5" else with_settings


@pytest.fixture(params=[*OURS, *STOCK])
def make(request: pytest.FixtureRequest, folder: Path) -> Any:
    return maker(request.param, folder)


@pytest.fixture(params=[*OURS, "byt5"])
def make_with_names(request: pytest.FixtureRequest, folder: Path) -> Any:
    """Not Canine, whose special tokens are characters of text too."""
    return maker(request.param, folder)


@functools.cache
def canine() -> Any:
    return CanineTokenizer()


def with_settings(**settings: Any) -> Any:
    """A Canine without its constructor, which lists 1,114,112 characters several times."""
    made = copy.copy(canine())
    for name, value in settings.items():
        setattr(made, name, value)
    return made


def bare(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_special_tokens_are_added_everywhere_alike(make: Any) -> None:
    tokenizer = make()
    for pair in (None, SHORT):
        first, second = bare(tokenizer, LONG), bare(tokenizer, pair) if pair else None
        whole = tokenizer(LONG, pair)["input_ids"]
        added = len(whole) - len(first) - len(second or [])
        assert added > 0
        assert tokenizer.num_special_tokens_to_add(pair=pair is not None) == added
        assert tokenizer.build_inputs_with_special_tokens(first, second) == whole
        assert tokenizer.prepare_for_model(first, second)["input_ids"] == whole
        assert tokenizer.encode(LONG, pair) == whole
        mask = tokenizer(LONG, pair, return_special_tokens_mask=True)["special_tokens_mask"]
        assert len(mask) == len(whole)
        assert sum(mask) == added
        assert [number for number, special in zip(whole, mask, strict=True) if not special] == first + (second or [])
        assert tokenizer.get_special_tokens_mask(first, second) == mask
        assert tokenizer.get_special_tokens_mask(whole, already_has_special_tokens=True) == mask


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("by", ["constructor", "attribute"])
def test_truncation_of_one_text_on_each_side(make: Any, side: str, by: str) -> None:
    tokenizer = make(truncation_side=side) if by == "constructor" else make()
    tokenizer.truncation_side = side
    ids = bare(tokenizer, LONG)
    added = tokenizer.num_special_tokens_to_add()
    for kept in (len(ids) - 1, 5, 1):
        left = ids[:kept] if side == "right" else ids[-kept:]
        wanted = tokenizer.build_inputs_with_special_tokens(left)
        for strategy in (True, "longest_first", "only_first"):
            assert tokenizer(LONG, truncation=strategy, max_length=kept + added)["input_ids"] == wanted
    untouched = tokenizer(LONG, truncation=True, max_length=len(ids) + added)["input_ids"]
    assert untouched == tokenizer(LONG)["input_ids"]


@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation_of_pairs(make: Any, side: str) -> None:
    tokenizer = make(truncation_side=side)
    first, second = bare(tokenizer, LONG), bare(tokenizer, SHORT)
    assert len(first) > len(second) + 2
    room = tokenizer.num_special_tokens_to_add(pair=True) + len(second)

    def cut(ids: list[int], kept: int) -> list[int]:
        return ids[:kept] if side == "right" else ids[len(ids) - kept :]

    def encoded(strategy: Any, length: int) -> list[int]:
        return list(tokenizer(LONG, SHORT, truncation=strategy, max_length=length)["input_ids"])

    build = tokenizer.build_inputs_with_special_tokens
    assert encoded("only_first", room + 3) == build(cut(first, 3), second)
    assert encoded("longest_first", room + len(second) + 1) == build(cut(first, len(second) + 1), second)
    assert encoded("longest_first", room + len(second) - 2) == build(
        cut(first, len(second) - 1), cut(second, len(second) - 1)
    )
    only_second = room - 2 + len(first)
    assert encoded("only_second", only_second) == build(first, cut(second, len(second) - 2))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("length", [None, 64])
def test_padding(make: Any, side: str, length: int | None) -> None:
    tokenizer = make(padding_side=side)
    texts = [LONG, SHORT, ""]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    batch = tokenizer(texts, padding="max_length" if length else True, max_length=length, truncation=bool(length))
    size = length or max(map(len, rows))
    for row, ids, mask in zip(rows, batch["input_ids"], batch["attention_mask"], strict=True):
        fill = [tokenizer.pad_token_id] * (size - len(row))
        assert ids == (row + fill if side == "right" else fill + row)
        ones, zeros = [1] * len(row), [0] * len(fill)
        assert mask == (ones + zeros if side == "right" else zeros + ones)
    padded = tokenizer.pad({"input_ids": rows}, padding=True, pad_to_multiple_of=8)
    assert {len(ids) % 8 for ids in padded["input_ids"]} == {0}
    other = tokenizer(texts, padding=True, padding_side="left" if side == "right" else "right")["input_ids"]
    assert other[-1] != batch["input_ids"][-1]


def test_batches_are_their_texts(make: Any) -> None:
    tokenizer = make()
    texts = [LONG, SHORT, ""]
    singles = [tokenizer(text) for text in texts]
    assert tokenizer(texts)["input_ids"] == [single["input_ids"] for single in singles]
    pairs = tokenizer(texts, list(reversed(texts)))["input_ids"]
    assert pairs == [tokenizer(a, b)["input_ids"] for a, b in zip(texts, reversed(texts), strict=True)]
    assert tokenizer([(a, b) for a, b in zip(texts, reversed(texts), strict=True)])["input_ids"] == pairs
    arrays = tokenizer(texts, padding=True, return_tensors="np")
    assert arrays["input_ids"].shape == arrays["attention_mask"].shape == (3, max(len(s["input_ids"]) for s in singles))
    with pytest.raises(ValueError, match="input_ids"):
        tokenizer([])
    with pytest.raises(ValueError, match="text"):
        tokenizer(None)
    one = tokenizer(SHORT, return_tensors="np")["input_ids"]
    assert one.tolist() == [singles[1]["input_ids"]]
    assert tokenizer(texts, return_length=True)["length"] == [len(single["input_ids"]) for single in singles]


def test_words(make: Any) -> None:
    tokenizer = make()
    words = SHORT.split()
    joined = [number for word in words for number in bare(tokenizer, word)]
    assert tokenizer(words, is_split_into_words=True, add_special_tokens=False)["input_ids"] == joined
    batch = tokenizer([words, words[:1]], is_split_into_words=True)["input_ids"]
    assert batch[0] == tokenizer.build_inputs_with_special_tokens(joined)
    pair = tokenizer(words, words[:1], is_split_into_words=True)["input_ids"]
    assert pair == tokenizer.build_inputs_with_special_tokens(joined, bare(tokenizer, words[0]))


def test_overflow(make: Any) -> None:
    tokenizer = make()
    ids, added = bare(tokenizer, LONG), tokenizer.num_special_tokens_to_add()
    found = tokenizer(LONG, truncation=True, max_length=10 + added, stride=2, return_overflowing_tokens=True)
    assert found["input_ids"] == tokenizer.build_inputs_with_special_tokens(ids[:10])
    assert found["overflowing_tokens"] == ids[8:]
    assert found["num_truncated_tokens"] == len(ids) - 10


def test_tokens_and_ids_are_one_to_one(make: Any) -> None:
    tokenizer = make()
    for text in [*SENTENCES, LONG, SHORT]:
        tokens = tokenizer.tokenize(text)
        ids = tokenizer.convert_tokens_to_ids(tokens)
        assert ids == bare(tokenizer, text)
        assert tokenizer.convert_ids_to_tokens(ids) == tokens
        assert tokenizer.convert_tokens_to_string(tokens) == tokenizer.decode(ids) == text
        assert tokenizer.batch_decode([ids, ids]) == [text, text]
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_added_tokens(make_with_names: Any) -> None:
    tokenizer = make_with_names()
    size = len(tokenizer)
    assert tokenizer.add_tokens(["newword", AddedToken("<ent>", lstrip=True, rstrip=True)]) == 2
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]}) == 1
    assert len(tokenizer) == size + 3
    assert tokenizer.add_tokens(["newword"]) == 0
    numbers = tokenizer.convert_tokens_to_ids(["newword", "<ent>", "<|turn|>"])
    assert len(set(numbers)) == 3
    assert min(numbers) >= size
    text = "a newword b<|turn|>c <ent> d"
    ids = bare(tokenizer, text)
    assert [number for number in ids if number in numbers] == [numbers[0], numbers[2], numbers[1]]
    parts = [bare(tokenizer, part) for part in ("a ", " b", "c", "d")]
    wanted = [*parts[0], numbers[0], *parts[1], numbers[2], *parts[2], numbers[1], *parts[3]]
    assert ids == wanted
    assert tokenizer.all_special_ids.count(numbers[2]) == 1
    skipped = tokenizer.decode(ids, skip_special_tokens=True)
    assert "<|turn|>" not in skipped
    assert "newword" in skipped


def test_special_tokens_in_a_text(make_with_names: Any) -> None:
    """By default they are special, as everywhere; with `split_special_tokens` they are letters."""
    tokenizer = make_with_names()
    for name in tokenizer.all_special_tokens:
        assert bare(tokenizer, name) == [tokenizer.convert_tokens_to_ids(name)]
    name = tokenizer.pad_token
    letters = bare(make_with_names(split_special_tokens=True), name)
    assert tokenizer.pad_token_id not in letters
    assert len(letters) >= 1
    assert tokenizer(name, add_special_tokens=False, split_special_tokens=True)["input_ids"] == letters


def test_saved_and_read_again(make_with_names: Any, tmp_path: Path) -> None:
    tokenizer = make_with_names(truncation_side="left", padding_side="left", model_max_length=9)
    tokenizer.add_tokens(["newword"])
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    texts = [*SENTENCES, "a newword b", ""]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    for other in (again, pickle.loads(pickle.dumps(tokenizer))):
        assert [other(text)["input_ids"] for text in texts] == ids
        assert other.get_vocab() == tokenizer.get_vocab()
        assert (other.truncation_side, other.padding_side, other.model_max_length) == ("left", "left", 9)
        assert len(other(LONG, truncation=True)["input_ids"]) == 9
        chat = other.apply_chat_template([{"role": "user", "content": "a bird"}], tokenize=False)
        assert chat == "<user>a bird"


@pytest.mark.parametrize("name", OURS)
def test_too_little_room_is_refused(name: str, folder: Path) -> None:
    """Where transformers would give more than `max_length` without a word."""
    tokenizer = SpeakTokenizerHF.from_pretrained(folder)
    assert tokenizer(LONG, SHORT, truncation=True, max_length=4)["input_ids"] == [0, 2, 2, 2]
    for strategy, length in (("longest_first", 3), ("only_first", 6), ("only_second", 9)):
        with pytest.raises(SpeakError, match=f"{strategy} can take"):
            tokenizer(LONG, SHORT, truncation=strategy, max_length=length)
    with pytest.raises(SpeakError, match="only_second can take 0"):
        tokenizer(LONG, truncation="only_second", max_length=6)


@pytest.mark.parametrize("name", OURS)
def test_vocabulary_has_no_holes(name: str, folder: Path) -> None:
    tokenizer = SpeakTokenizerHF.from_pretrained(folder)
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(tokenizer)))
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) == sorted(vocabulary, key=vocabulary.get)
    with pytest.raises(SpeakError, match="allowed: 0 to"):
        tokenizer.decode([len(tokenizer)])
    assert tokenizer.convert_tokens_to_ids("no such token") == tokenizer.unk_token_id


def test_offsets_through_padding_and_truncation(folder: Path) -> None:
    tokenizer = SpeakTokenizerHF.from_pretrained(folder)
    text = "½ ﬁne e\u0301t\u200be <pad> the  committee"
    plain = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    assert plain["input_ids"] == bare(tokenizer, text)
    spans = plain["offset_mapping"]
    pad = plain["input_ids"].index(tokenizer.pad_token_id)
    assert text[slice(*spans[pad])] == "<pad>"
    for side in ("left", "right"):
        tokenizer.truncation_side = tokenizer.padding_side = side
        found = tokenizer(
            [text, "a", text],
            padding=True,
            truncation=True,
            max_length=7,
            return_offsets_mapping=True,
            return_word_ids=True,
        )
        kept = spans[:5] if side == "right" else spans[-5:]
        assert found["offset_mapping"][0] == found["offset_mapping"][2] == [(0, 0), *kept, (0, 0)]
        numbers = np.array(found["input_ids"])
        words = np.array(found["word_ids"])
        assert words.shape == numbers.shape
        assert (words[1] >= 0).sum() == len(bare(tokenizer, "a"))
        assert (
            found["input_ids"] == tokenizer([text, "a", text], padding=True, truncation=True, max_length=7)["input_ids"]
        )
        tensors = tokenizer(text, return_offsets_mapping=True, return_tensors="np")
        assert tensors["offset_mapping"].shape == (*tensors["input_ids"].shape, 2)
