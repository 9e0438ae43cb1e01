"""speak_neuro.train: one call from texts to a tokenizer, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY_FLAGS

import speak_neuro
from speak_neuro.api.train import to_flags
from speak_neuro.errors import SpeakError


def tiny() -> dict[str, Any]:
    pairs = zip(TINY_FLAGS[:-1:2], TINY_FLAGS[1::2], strict=False)
    return {name.removeprefix("--").replace("-", "_"): value for name, value in pairs if name != "--encoder"}


def test_texts_to_tokenizer(excerpt: Path, tmp_path: Path) -> None:
    lines = excerpt.read_text(encoding="utf-8").split("\n")
    out = tmp_path / "runs" / "mine"
    made = speak_neuro.train(lines, out, steps=6, quiet=True, **tiny())
    text = "a line of text"
    assert "".join(made.tokens(text)) == text
    assert made.tokens(text) == speak_neuro.Tokenizer.load(out).tokens(text)
    (written,) = (tmp_path / "runs" / "cache").glob("texts-*.txt")
    assert written.read_text(encoding="utf-8") == "\n".join(lines)
    again = speak_neuro.train(None, out, resume=True, steps=8, quiet=True, evaluate_characters=500)
    assert again.tokens(text)
    by_path = speak_neuro.train(excerpt, tmp_path / "other", steps=6, quiet=True, **tiny())
    assert by_path.tokens(text) == made.tokens(text)


def test_the_how_to_page_runs(excerpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks as they stand, on a longer text and with fewer steps."""
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "howto-tokenizer.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"texts": excerpt.read_text(encoding="utf-8").split("\n")}
    train = speak_neuro.train

    def short(texts: Any, out: Any, **settings: Any) -> Any:
        return train(texts, out, **{**settings, "steps": 6, "quiet": True, **tiny()})

    monkeypatch.setattr(speak_neuro, "train", short)
    for code in blocks:
        exec(compile(code.replace('["Some text.", "More text."]', "texts"), page.name, "exec"), names)
    assert names["tokenizer"].decode(names["tokenizer"].encode("Some text.")) == "Some text."
    assert (tmp_path / "my-tokenizer" / "README.md").exists()


def test_refusals(tmp_path: Path, tiny_run: Path) -> None:
    for texts, settings, message in (
        ("one\ntwo", {}, "a path, or an iterable of strings"),
        ([], {}, "texts are empty"),
        (["some text"], {"tokenizer": "magnet"}, "tokenizer is magnet; allowed here: speak"),
        (["some text"], {"device": "cpu"}, "too few to split"),
    ):
        with pytest.raises(SpeakError, match=message):
            speak_neuro.train(texts, tmp_path / "run", **settings)
    with pytest.raises(ValueError, match=r"unrecognized arguments: --wings 2; speak-train --help-all"):
        speak_neuro.train(["x"], tmp_path / "run", wings=2)
    with pytest.raises(SpeakError, match="holds a run"):
        speak_neuro.train(["x"], tiny_run)


def test_flags() -> None:
    given = {"steps": 3, "rest_term": False, "learn_mixes": True, "resume": False, "preset": None}
    assert to_flags(given) == ["--steps", "3", "--no-rest-term", "--learn-mixes"]
