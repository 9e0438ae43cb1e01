"""Any tokenizer as an object of transformers: native ids, offsets, padding, pairs, saving, workers, a card."""

from __future__ import annotations

from pathlib import Path

import pytest
from api_fixtures import CORPUS, SPECIALS, by_network, by_rtok, by_table
from rtok_text_fixtures import SENTENCES

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'speak-neuro[hf]'")

from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from speak_neuro.api.hf import SpeakTokenizerHF, write_pretrained
from speak_neuro.api.tokenizer import Tokenizer
from speak_neuro.corpus.reader import embedded_names, embedded_text
from speak_neuro.errors import SpeakError
from speak_neuro.inference.frozen_tokenizer import SPECIALS as FIRST

NAMES = SPECIALS[:2]
TEXTS = [*CORPUS[:3], "x <s> y", "👩😀 the end", "", " lead", "tail \n"]


def native(kind: str, tiny_run: Path) -> Tokenizer:
    made = {"rtok": by_rtok, "table": by_table}.get(kind, lambda unit: by_network(tiny_run, unit))
    return made("ranges" if kind == "table" else "tokens").with_specials(NAMES)


@pytest.mark.parametrize("kind", ["table", "network", "rtok"])
def test_native_ids_in_every_language(kind: str, tiny_run: Path, tmp_path: Path) -> None:
    tokenizer = native(kind, tiny_run)
    made = write_pretrained(tokenizer, tmp_path / "made")
    again = SpeakTokenizerHF.from_pretrained(tmp_path / "made")
    texts = [embedded_text(name)[:600] for name in embedded_names()] + (SENTENCES if kind == "rtok" else TEXTS)
    for text in texts:
        wanted = [len(FIRST) + k for k in tokenizer.encode(text).tolist()]
        for other in (made, again):
            found = other(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
            assert found["input_ids"] == wanted
            assert found["offset_mapping"] == [tuple(s) for s in tokenizer.encode_with_offsets(text).offsets.tolist()]
        assert again.decode(wanted, clean_up_tokenization_spaces=False) == tokenizer.decode(tokenizer.encode(text))
    assert len(again) == len(FIRST) + tokenizer.vocab_size
    assert [again.convert_tokens_to_ids(name) for name in NAMES] == [
        len(FIRST) + number for number in tokenizer.special_ids.values()
    ]


def test_special_tokens_pairs_padding_truncation(tmp_path: Path, tiny_run: Path) -> None:
    made = write_pretrained(native("table", tiny_run), tmp_path / "made", padding_side="left", model_max_length=12)
    end = made.convert_tokens_to_ids("<|end|>")
    assert made("the<|end|>", add_special_tokens=False)["input_ids"][-1] == end
    batch = made(["the thing", "a"], ["of", "others think"], padding=True, truncation=True, return_tensors="pt")
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["input_ids"].shape[1] <= 12
    assert (batch["attention_mask"].sum(1) == (batch["input_ids"] != made.pad_token_id).sum(1)).all()
    assert batch["attention_mask"][:, -1].all()
    made.add_tokens(["<new>"])
    assert made.decode(made("a <new> b", add_special_tokens=False)["input_ids"]) == "a <new> b"


def test_auto_tokenizer_chat_and_card(tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    template = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
    tokenizer = native("table", tiny_run)
    made = write_pretrained(tokenizer, tmp_path / "made", chat_template=template)
    again = AutoTokenizer.from_pretrained(tmp_path / "made", trust_remote_code=True)
    assert type(again).__name__ == "SpeakTokenizerHF"
    assert [again(text)["input_ids"] for text in TEXTS] == [made(text)["input_ids"] for text in TEXTS]
    chat = [{"role": "user", "content": "the thing"}, {"role": "assistant", "content": "others"}]
    assert again.apply_chat_template(chat, tokenize=False) == "the thing<|end|>others<|end|>"
    again.save_pretrained(tmp_path / "two")
    third = AutoTokenizer.from_pretrained(tmp_path / "two", trust_remote_code=True)
    assert third(TEXTS)["input_ids"] == made(TEXTS)["input_ids"]
    card = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    assert f"{tokenizer.vocab_size:,} ids" in card
    assert "contextual ranges" in card
    assert Tokenizer.load(tmp_path / "made").encode("the thing").tolist() == tokenizer.encode("the thing").tolist()
    collated = DataCollatorForLanguageModeling(again, mlm=False)([again("the thing"), again("a")])
    assert collated["labels"].shape == collated["input_ids"].shape


def test_map_by_workers(tmp_path: Path, tiny_run: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'speak-neuro[hf]'")
    made = write_pretrained(native("network", tiny_run), tmp_path / "made")
    table = datasets.Dataset.from_dict({"text": TEXTS[:4] * 4})
    found = table.map(lambda rows: made(rows["text"]), batched=True, batch_size=4, num_proc=2)
    assert found["input_ids"][:] == made(TEXTS[:4] * 4)["input_ids"]


def test_refusals(tmp_path: Path, tiny_run: Path) -> None:
    tokenizer = native("table", tiny_run)
    with pytest.raises(SpeakError, match="has no vocabulary, so no ids"):
        write_pretrained(Tokenizer(tokenizer.boundaries), tmp_path / "made")
    with pytest.raises(SpeakError, match=r"special token '\|' is also a piece"):
        write_pretrained(tokenizer.with_specials(SPECIALS), tmp_path / "made")
    write_pretrained(tokenizer, tmp_path / "made")
    (tmp_path / "made" / "speak_vocabulary.safetensors").unlink()
    with pytest.raises(SpeakError, match=r"holds no speak_vocabulary\.safetensors; write the folder"):
        SpeakTokenizerHF.from_pretrained(tmp_path / "made")
