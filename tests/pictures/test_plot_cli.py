"""speak-plot and `Speak.show`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from speak_neuro.inference.speak import Speak
from speak_neuro.inference.subwords import SUBWORDS, train_subwords
from speak_neuro.inference.views import entropy_bits, library_view
from speak_neuro.plot_cli import main

TEXT = "German germanium: the neuron closes a token."


def test_show_has_the_runs_own_tokens_and_potential(tiny_run: Path) -> None:
    speak = Speak.load(tiny_run)
    (view,) = speak.show(TEXT).views
    trace = speak.trace(TEXT)
    assert view.tokens == speak.tokens(TEXT)
    assert view.neuron is not None
    np.testing.assert_array_equal(view.neuron.membrane, trace.membrane)
    hard = [bool(trace.spikes[end - 1] and trace.gate_logit[end - 1] > 0) for _, end in view.spans.tolist()]
    assert [ending == "hard" for ending in view.endings] == hard
    (empty,) = speak.show("").views
    assert empty.tokens == []


def test_entropy_is_the_models_and_does_not_look_ahead(tiny_run: Path) -> None:
    speak = Speak.load(tiny_run)
    text = "The neuron is the tokenizer. " * 8  # several windows

    def bits_of(text: str) -> np.ndarray:
        return entropy_bits(speak.engine, speak.alphabet.encode(text), speak.spikes(text))

    bits = bits_of(text)
    assert bits.shape == (len(text),)
    assert bits.min() > 0
    assert bits.max() < np.log2(len(speak.alphabet)) + 1e-4
    np.testing.assert_allclose(bits_of(text[:150]), bits[:150], atol=1e-4)


@pytest.mark.parametrize("ending", ["html", "png", "svg", "txt"])
def test_a_file_of_every_form(tiny_run: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"tokens.{ending}"
    flags = ["--run", str(tiny_run), "--text", TEXT, "--out", str(out)]
    assert main([*flags, "--against", "bpe", "--vocabulary-size", "400"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    data = out.read_bytes()
    assert data.startswith({"html": b"<!doctype html>", "png": b"\x89PNG", "svg": b"<?xml", "txt": b"SPEAK"}[ending])
    if ending in ("html", "txt"):
        assert b"BPE 400" in data


def test_two_runs_and_standard_input(
    tiny_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", type("Input", (), {"buffer": io.BytesIO(TEXT.encode())}))
    assert main(["--run", str(tiny_run), "--run", str(tiny_run), "--no-entropy"]) == 0
    shown = capsys.readouterr().out
    assert shown.count(f"SPEAK, {tiny_run}: ") == 2
    assert "┃".join(Speak.load(tiny_run).tokens(TEXT)[:1]) in shown


def test_a_tokenizer_file_beside_the_run(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_subwords("unigram", 300, [TEXT * 20]).save(str(tmp_path / "mine.json"))
    assert main(["--run", str(tiny_run), "--text", TEXT, "--against", str(tmp_path / "mine.json")]) == 0
    assert "mine: " in capsys.readouterr().out
    (tmp_path / "mine.json").write_text(json.dumps({"model": 1}), encoding="utf-8")
    assert main(["--run", str(tiny_run), "--text", TEXT, "--against", str(tmp_path / "mine.json")]) == 2
    assert "not a tokenizer.json" in capsys.readouterr().err


@pytest.mark.parametrize("kind", SUBWORDS)
@pytest.mark.parametrize(
    "text", ["", "a  b\n\tc", "שלום", "日本語のテキスト", "👩\u200d👧 x\u00e9e\u0301", " lead and trail "]
)
def test_subwords_partition_any_text(kind: str, text: str) -> None:
    tokenizer = train_subwords(kind, 300, ["some text to learn from, שלום 日本 " * 20])
    view = library_view(tokenizer, text, kind)
    assert "".join(view.tokens) == text
    if text == " lead and trail ":
        assert len(view.tokens) > 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--text", ""], "the text has 0 characters"),
        (["--text", "a", "--against", "wordpiece"], "allowed: bpe, bpe-lines, unigram, unigram-bytes, or the path"),
        (["--text", "a", "--out", "x.pdf"], "no such form of picture"),
        (["--text", "a", "--against", "bpe", "--vocabulary-size", "10"], "--vocabulary-size is 10"),
        (["--text", "a", "--against", "bpe", "--corpus", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_refusals_are_one_line(
    tiny_run: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run", str(tiny_run), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("speak-plot: error: ")
    assert message in error
    assert error.count("\n") == 1
