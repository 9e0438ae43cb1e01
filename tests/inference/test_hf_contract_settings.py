"""More of what transformers' common tokenizer tests ask: settings, special tokens by name, saving, chat, tensors.

As in test_hf_contract each test is passed by ByT5 too.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from api_fixtures import rtok_for_transformers

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'speak-neuro[hf]'")

from transformers import AddedToken, AutoTokenizer, ByT5Tokenizer

from speak_neuro.api.hf import SpeakTokenizerHF
from speak_neuro.errors import SpeakError

LONG, SHORT = "the committee visited the old committee again", "a bird , it is"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rtok")
    rtok_for_transformers(path)
    return path


@pytest.fixture(params=["rtok", "byt5"])
def make(request: pytest.FixtureRequest, folder: Path) -> Any:
    """A function that makes the tokenizer with the given settings."""
    if request.param == "byt5":
        return ByT5Tokenizer
    return lambda **settings: SpeakTokenizerHF.from_pretrained(folder, **settings)


def bare(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_special_tokens_by_name(make: Any) -> None:
    tokenizer = make()
    for name in ("eos_token", "pad_token", "unk_token"):
        token, number = getattr(tokenizer, name), getattr(tokenizer, f"{name}_id")
        assert tokenizer.convert_tokens_to_ids(token) == number
        assert tokenizer.convert_ids_to_tokens(number) == token
        assert token in tokenizer.all_special_tokens
        assert number in tokenizer.all_special_ids
    size = len(tokenizer)
    tokenizer.add_special_tokens({"bos_token": "[begin]"})
    assert (tokenizer.bos_token, tokenizer.bos_token_id, len(tokenizer)) == ("[begin]", size, size + 1)
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_other_special_tokens_from_the_start(make: Any, tmp_path: Path) -> None:
    plain = make()
    tokenizer = make(mask_token="[mask]", extra_special_tokens=["<a>", "<b>"])
    numbers = tokenizer.convert_tokens_to_ids(["[mask]", "<a>", "<b>"])
    assert len(set(numbers)) == 3
    assert tokenizer.unk_token_id not in numbers
    for name, number in zip(("[mask]", "<a>", "<b>"), numbers, strict=True):
        assert bare(tokenizer, f"{SHORT}{name}") == [*bare(plain, SHORT), number]
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again.convert_tokens_to_ids(["[mask]", "<a>", "<b>"]) == numbers
    assert again.mask_token == "[mask]"
    assert bare(again, f"{SHORT}<b>") == [*bare(plain, SHORT), numbers[2]]


@pytest.mark.parametrize("name", ["padding_side", "truncation_side"])
def test_sides(make: Any, name: str, tmp_path: Path) -> None:
    for side in ("left", "right"):
        assert getattr(make(**{name: side}), name) == side
    with pytest.raises(ValueError, match="sideways"):
        make(**{name: "sideways"})
    tokenizer = make(**{name: "left"})
    tokenizer.save_pretrained(tmp_path)
    assert getattr(type(tokenizer).from_pretrained(tmp_path), name) == "left"
    assert getattr(type(tokenizer).from_pretrained(tmp_path, **{name: "right"}), name) == "right"


def test_lengths(make: Any) -> None:
    tokenizer = make()
    ids, added = bare(tokenizer, LONG), tokenizer.num_special_tokens_to_add()
    tokenizer.model_max_length = len(ids) - 3
    assert len(tokenizer(LONG, truncation=True)["input_ids"]) == len(ids) - 3
    assert len(tokenizer(LONG)["input_ids"]) == len(ids) + added
    assert len(tokenizer(SHORT, padding="max_length", truncation=True)["input_ids"]) == len(ids) - 3
    multiple = tokenizer(SHORT, padding=True, pad_to_multiple_of=7)["input_ids"]
    assert len(multiple) % 7 == 0
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="pad"):
        tokenizer([LONG, SHORT], padding=True)


def test_masks_and_types(make: Any) -> None:
    tokenizer = make()
    found = tokenizer(LONG, SHORT, return_token_type_ids=True, return_special_tokens_mask=True)
    assert found["token_type_ids"] == [0] * len(found["input_ids"])
    assert found["attention_mask"] == [1] * len(found["input_ids"])
    types = tokenizer.create_token_type_ids_from_sequences(bare(tokenizer, LONG), bare(tokenizer, SHORT))
    assert len(types) == len(found["input_ids"])
    bared = tokenizer(LONG, add_special_tokens=False, return_special_tokens_mask=True)["special_tokens_mask"]
    assert not any(bared)
    assert "attention_mask" not in tokenizer(LONG, return_attention_mask=False)


def test_ids_that_are_given(make: Any) -> None:
    """Ids instead of a text, and tokens instead of ids, go through the same steps."""
    tokenizer = make()
    ids = bare(tokenizer, LONG)
    prepared = tokenizer.prepare_for_model(ids, truncation=True, max_length=9, padding="max_length")
    assert prepared["input_ids"] == tokenizer(LONG, truncation=True, max_length=9, padding="max_length")["input_ids"]
    assert tokenizer.encode(ids) == tokenizer.encode(LONG)
    assert tokenizer.encode(LONG, add_special_tokens=False) == ids
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(LONG)) == ids
    assert tokenizer.decode(ids[0]) == tokenizer.convert_tokens_to_string([tokenizer.convert_ids_to_tokens(ids[0])])


@pytest.mark.parametrize("kind", ["np", "pt"])
def test_tensors(make: Any, kind: str) -> None:
    tokenizer = make()
    batch = tokenizer([LONG, SHORT], padding=True, return_tensors=kind)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, len(tokenizer(LONG)["input_ids"]))
    assert batch["input_ids"][1].tolist()[: len(tokenizer(SHORT)["input_ids"])] == tokenizer(SHORT)["input_ids"]
    assert tokenizer.pad(tokenizer([LONG, SHORT]), return_tensors=kind, padding=True)["input_ids"].shape[0] == 2
    if kind == "pt":  # numpy has arrays of lists
        with pytest.raises(ValueError, match="padding"):
            tokenizer([LONG, SHORT], return_tensors=kind)


def test_added_tokens_keep_their_places(make: Any, tmp_path: Path) -> None:
    tokenizer = make()
    tokenizer.add_tokens(["bbb", AddedToken("aaa", single_word=True), "ccc"])
    tokenizer.add_tokens(["aaab"])
    text = "bbb aaa xaaay aaab ccc"
    ids = bare(tokenizer, text)
    numbers = tokenizer.convert_tokens_to_ids(["bbb", "aaa", "aaab", "ccc"])
    assert numbers[3] < numbers[2]
    assert [number for number in ids if number in numbers] == numbers
    tokenizer.save_pretrained(tmp_path)
    for other in (type(tokenizer).from_pretrained(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert bare(other, text) == ids
        assert other.get_added_vocab() == tokenizer.get_added_vocab()
        assert len(other) == len(tokenizer)
        assert other.add_tokens(["bbb", "ccc"]) == 0


def test_chat(make: Any, tmp_path: Path) -> None:
    tokenizer = make()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|end|>"]})
    tokenizer.chat_template = "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"
    user, end = tokenizer.convert_tokens_to_ids(["<|user|>", "<|end|>"])
    chat = [{"role": "user", "content": SHORT}, {"role": "user", "content": LONG}]
    wanted = [user, *bare(tokenizer, SHORT), end, user, *bare(tokenizer, LONG), end]
    assert tokenizer.apply_chat_template(chat, tokenize=True)["input_ids"] == wanted
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again.apply_chat_template(chat, tokenize=True)["input_ids"] == wanted


def test_the_saved_folder_is_whole(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads from another place, after the one that it came from is gone; saving again gives the same bytes."""
    first, second = tmp_path / "first", tmp_path / "second"
    tokenizer = SpeakTokenizerHF.from_pretrained(folder)
    tokenizer.save_pretrained(first)
    SpeakTokenizerHF.from_pretrained(first).save_pretrained(second)
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}
    names = {p.name for p in first.iterdir()}
    assert {"speak_table.safetensors", "speak_vocabulary.safetensors", "tokenizer_config.json"} <= names
    saved = (first / "tokenizer_config.json").read_text(encoding="utf-8")
    assert str(folder) not in saved
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    moved = first.rename(tmp_path / "elsewhere")
    again: Any = AutoTokenizer.from_pretrained(moved, trust_remote_code=True)
    assert again(LONG)["input_ids"] == tokenizer(LONG)["input_ids"]
    with pytest.raises(SpeakError, match="filename_prefix is 'mine'; allowed: none"):
        tokenizer.save_vocabulary(str(second), "mine")
