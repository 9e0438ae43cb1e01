"""One tokenizer for every run: lossless, batch = single = stream, frozen, one folder, threads, after a fork."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from api_fixtures import CORPUS, SPECIALS, UNITS, by_network, by_rtok, by_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rtok_text_fixtures import SENTENCES, lively_tokenizer
from table_fixtures import TEXTS, make_table

import speak_neuro
from speak_neuro.api.boundaries import NetworkBoundaries, TableBoundaries
from speak_neuro.api.tokenizer import Tokenizer
from speak_neuro.common.digests import DIGEST, digest_of
from speak_neuro.errors import SpeakError
from speak_neuro.export.cli import main as export
from speak_neuro.inference.speak import Speak
from speak_neuro.rtok.text.normalise import normalise
from speak_neuro.table.tokenizer import TableTokenizer


def check(tokenizer: Tokenizer, text: str, pieces: list[str]) -> None:
    """All that has to hold for a text, in one go."""
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids.tolist() == tokenizer.encode_batch([text, "other", text], threads=2)[2].tolist()
    assert tokenizer.stream().feed_all(pieces).tolist() == ids.tolist()
    assert list(tokenizer.token_stream().feed_all(pieces)) == tokenizer.tokens(text)
    assert "".join(tokenizer.tokens(text)) == text
    found = tokenizer.encode_with_offsets(text)
    assert found.ids.tolist() == ids.tolist()
    raw = text.encode("utf-8", "surrogatepass")
    for number, (start, end) in zip(ids.tolist(), found.offsets.tolist(), strict=True):
        assert tokenizer.decode_bytes([number]) in text[start:end].encode("utf-8", "surrogatepass")
    spans = tokenizer.spans(text, "byte", ranges=True).tolist()
    assert b"".join(raw[start:end] for start, end in spans) == raw


@st.composite
def texts_in_pieces(draw: st.DrawFn) -> tuple[str, list[str]]:
    text = draw(TEXTS)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=5)))
    return text, [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@pytest.mark.parametrize("unit", UNITS)
@settings(max_examples=60)
@given(given_text=texts_in_pieces())
def test_table(unit: str, given_text: tuple[str, list[str]]) -> None:
    check(by_table(unit), *given_text)


@pytest.mark.parametrize("unit", UNITS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_text=texts_in_pieces())
def test_network(tiny_run: Path, unit: str, given_text: tuple[str, list[str]]) -> None:
    check(by_network(tiny_run, unit), *given_text)


def test_a_long_text_without_resets_streams() -> None:
    """Units are cut, so a stream gives ids before a range ends, and the same as the whole."""
    tokenizer = by_table("ranges")
    text = "ת" * 1500  # not in the alphabet's lively part: whatever it does, the same
    stream = tokenizer.stream()
    fed = [stream.feed(character) for character in text]
    assert np.concatenate([*fed, stream.flush()]).tolist() == tokenizer.encode(text).tolist()
    held = 0
    for ids, character in zip(fed, text, strict=True):
        held += len(character.encode()) - len(tokenizer.decode_bytes(ids))
        assert held <= 256


@pytest.mark.parametrize("unit", UNITS)
def test_rtok(unit: str) -> None:
    """Text comes back in its normal form; offsets are those of the raw text."""
    tokenizer = by_rtok(unit)
    for text in [*SENTENCES, "½ ﬁne e\u0301t\u200be", "", "a  b"]:
        found = tokenizer.encode_with_offsets(text)
        assert tokenizer.decode(found.ids) == normalise(text).replace("▁", " ").removeprefix(" ")
        assert found.ids.tolist() == tokenizer.encode_batch([text])[0].tolist()
        for start, end in found.offsets.tolist():
            assert 0 <= start <= end <= len(text)
    with pytest.raises(SpeakError, match="has no stream"):
        tokenizer.stream()


def test_rtok_tokens_are_the_segmenter_s() -> None:
    from speak_neuro.rtok.tokenizers.speak import SpeakSegmenter

    units = [normalise(text) for text in SENTENCES]
    (wanted,) = SpeakSegmenter(lively_tokenizer()).segment([units], "en")
    tokenizer = by_rtok("tokens")
    assert [[t.replace(" ", "▁") for t in tokenizer.tokens(text)] for text in SENTENCES] == wanted


def test_specials() -> None:
    tokenizer = by_table("ranges")
    size = len(tokenizer.vocabulary or ())
    assert tokenizer.special_ids == {name: size + k for k, name in enumerate(SPECIALS)}
    assert tokenizer.vocab_size == len(tokenizer) == size + 3
    text = "the <|end|>> of | it <|end|>"
    plain = tokenizer.encode(text)
    assert plain.max() < size
    assert tokenizer.decode(plain) == text
    every = tokenizer.encode(text, allowed_special="all")
    assert [k - size for k in every.tolist() if k >= size] == [1, 2, 0]  # the longer name where two fit
    one = tokenizer.encode(text, allowed_special={"<|end|>"})
    assert [k - size for k in one.tolist() if k >= size] == [0, 0]
    assert tokenizer.decode(every) == tokenizer.decode(one) == text
    assert tokenizer.decode(every, skip_special_tokens=True) == "the  of  it "
    found = tokenizer.encode_with_offsets(text, "all")
    assert found.ids.tolist() == every.tolist()
    assert [text[a:b] for (a, b), k in zip(found.offsets.tolist(), every.tolist(), strict=True) if k >= size] == [
        "<|end|>>",
        "|",
        "<|end|>",
    ]
    assert tokenizer.encode("", "all").tolist() == []
    for allowed, message in (("some", "allowed: 'all'"), (["<x>"], "holds '<x>'")):
        with pytest.raises(ValueError, match=message):
            tokenizer.encode("x", allowed)
    for names in (["a", "a"], [""]):
        with pytest.raises(ValueError, match="special token"):
            tokenizer.with_specials(names)


def test_decoding_what_is_no_text() -> None:
    tokenizer = by_table("ranges")
    assert tokenizer.decode([0xC3]) == "\ufffd"
    assert tokenizer.decode_batch([[97], [98, 99]]) == ["a", "bc"]
    with pytest.raises(ValueError, match="utf-8"):
        tokenizer.decode([0xC3], errors="strict")
    with pytest.raises(ValueError, match="ids run from"):
        tokenizer.decode([tokenizer.vocab_size])
    with pytest.raises(ValueError, match="ids run from"):
        tokenizer.decode([-1])


def test_byte_offsets() -> None:
    tokenizer, text = by_table("tokens"), "שלום the 👩"
    found = tokenizer.encode_with_offsets(text, unit="byte")
    for number, (start, end) in zip(found.ids.tolist(), found.offsets.tolist(), strict=True):
        assert tokenizer.decode_bytes([number]) in text.encode()[start:end]
    with pytest.raises(ValueError, match="unit is 'word'"):
        tokenizer.encode_with_offsets(text, unit="word")


def makers(tiny_run: Path) -> dict[str, Callable[[], Tokenizer]]:
    return {
        "table": lambda: by_table("ranges"),
        "network": lambda: by_network(tiny_run, "ranges"),
        "rtok": lambda: by_rtok("whole"),
    }


@pytest.mark.parametrize("kind", ["table", "network", "rtok"])
def test_folder_pickle_threads(kind: str, tiny_run: Path, tmp_path: Path) -> None:
    tokenizer = makers(tiny_run)[kind]()
    texts = [*CORPUS[:4], *SENTENCES, "x" * 700]
    wanted = [tokenizer.encode(text, "all").tolist() for text in texts]
    tokenizer.save(tmp_path / "one")
    again = Tokenizer.load(tmp_path / "one")
    assert again.vocabulary == tokenizer.vocabulary
    assert again.special_ids == tokenizer.special_ids
    again.save(tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
    for other in (again, pickle.loads(pickle.dumps(tokenizer))):
        assert [other.encode(text, "all").tolist() for text in texts] == wanted
    with ThreadPoolExecutor(4) as pool:
        assert [ids.tolist() for ids in pool.map(lambda text: again.encode(text, "all"), texts)] == wanted
    with pytest.raises(dataclasses.FrozenInstanceError):
        tokenizer.vocabulary = None  # type: ignore[misc]


def test_table_and_rtok_folders_need_no_torch(tmp_path: Path) -> None:
    for name, tokenizer in (("table", by_table("ranges")), ("rtok", by_rtok("tokens"))):
        tokenizer.save(tmp_path / name)
        code = (
            f"import sys, speak_neuro; t = speak_neuro.Tokenizer.load({str(tmp_path / name)!r})\n"
            "print(t.decode(t.encode('a line of text'))); print('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == ["a line of text", "False"]


@pytest.mark.parametrize("encoder", ["linear", "convolution", "window", "hourglass"])
def test_runs(encoder: str, gtok: Callable[..., int], excerpt: Path, tmp_path: Path) -> None:
    """Loaded from a run, whatever its encoder: Speak's tokens, by the run's table where it has one."""
    run = tmp_path / "run"
    flags = ["--data", str(excerpt), "--out", str(run), "--steps", "4", "--encoder", encoder, "--quiet"]
    assert gtok(*flags) == 0
    tokenizer, speak = speak_neuro.Tokenizer.load(run), Speak.load(run)
    assert isinstance(
        tokenizer.boundaries, TableBoundaries if encoder in ("linear", "convolution") else NetworkBoundaries
    )
    text = excerpt.read_text(encoding="utf-8")[:3000] + "שלום \ud800"
    assert tokenizer.tokens(text) == speak.tokens(text)
    assert np.array_equal(tokenizer.spans(text, ranges=True), speak.spans(text, hard_only=True))
    learned = tokenizer.learn_vocabulary([text], 400)
    assert learned.decode(learned.encode(text)) == text
    if isinstance(tokenizer.boundaries, TableBoundaries):
        assert export(["--to", "table", "--run", str(run), "--out", str(tmp_path / "t")]) == 0
        assert speak_neuro.Tokenizer.load(tmp_path / "t").tokens(text) == speak.tokens(text)


def test_after_a_fork(gtok: Callable[..., int], excerpt: Path, tmp_path: Path) -> None:
    """Workers forked from a process that has computed with several threads give the same ids, and do not hang."""
    run = tmp_path / "run"
    assert gtok("--data", str(excerpt), "--out", str(run), "--steps", "2", "--encoder", "window", "--quiet") == 0
    code = (
        "import multiprocessing, sys, speak_neuro, torch\n"
        "from speak_neuro.inference.speak import Speak\n"
        "torch.set_num_threads(2)\n"
        f"speak = Speak.load({str(run)!r}); text = open({str(excerpt)!r}, encoding='utf-8').read()[:4000]\n"
        f"t = speak_neuro.Tokenizer.load({str(run)!r}).learn_vocabulary([text], 400)\n"
        "torch.randn(600, 600) @ torch.randn(600, 600); wanted = t.encode(text).tolist(), speak.tokens(text)\n"
        "def work(_): return t.encode(text).tolist(), speak.tokens(text)\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    assert pool.map_async(work, range(4)).get(60) == [wanted] * 4\n"
        "print('same')"
    )
    free = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=free, timeout=150
    )
    assert done.stdout.strip() == "same", done.stderr


def test_refusals(tmp_path: Path, tiny_run: Path) -> None:
    bare = Tokenizer(TableBoundaries(TableTokenizer(make_table())))
    assert bare.vocab_size == 0
    for action in (lambda: bare.encode("x"), lambda: bare.decode([1]), bare.stream, lambda: bare.encode_batch(["x"])):
        with pytest.raises(SpeakError, match=r"no vocabulary, so no ids; make one: tokenizer\.learn_vocabulary"):
            action()
    for arguments, message in (
        (("x", 300), "texts is one string"),
        ((["x"], 300, "words"), "unit is 'words'; allowed: ranges, tokens, whole"),
        ((["x"], 257, "ranges", ["a", "b"]), "size is 257; allowed: at least 258"),
    ):
        with pytest.raises(ValueError, match=message):
            bare.learn_vocabulary(*arguments)  # type: ignore[arg-type]
    with pytest.raises(SpeakError, match="no such run folder"):
        Tokenizer.load(tmp_path / "nowhere")
    by_table("ranges").save(tmp_path / "made")
    about = tmp_path / "made" / "speak.json"
    for change, message in (
        ("{", "not valid JSON"),
        ("[]", "JSON, but not of a tokenizer"),
        ({"schema": 9}, "schema is 9, this version reads 1"),
        ({"boundaries": "magic"}, "boundaries is 'magic'; allowed: table, rtok, network"),
        ({"special_tokens": 3}, "special_tokens: found 3; allowed: a valid list"),
        ({"special_tokens": ["<x>"], "sha256": "0" * 64}, "sha256 is 000000000000... in the file"),
    ):
        good = about.read_text(encoding="utf-8")
        if isinstance(change, dict):
            changed = {name: value for name, value in json.loads(good).items() if name != DIGEST} | change
            change = json.dumps({DIGEST: digest_of(changed), **changed})
        about.write_text(change, "utf-8")
        with pytest.raises(SpeakError, match=message):
            Tokenizer.load(tmp_path / "made")
        about.write_text(good, "utf-8")


def test_show_has_the_tokens_and_their_endings(tiny_run: Path) -> None:
    text = "a line of text, and another one"
    network = by_network(tiny_run, "tokens").show(text)
    assert network.views[0].neuron is not None
    assert network.views[0].tokens == Speak.load(tiny_run).tokens(text)
    table = by_table("tokens")
    (view,) = table.show(text).views
    assert view.tokens == table.tokens(text)
    ranges = {0, *(end for _, end in table.spans(text, ranges=True).tolist())}
    for (_, end), ending in zip(view.spans.tolist(), view.endings, strict=True):
        assert ending in ("hard", "soft", "open")
        assert (ending == "hard") == (end in ranges) or end == len(text)
    assert "hard reset" in table.show(text).html()
    assert by_rtok("tokens").show(text).views[0].endings[0] == "plain"
