"""experiments/gtok.py as its user meets it: what a run leaves, and one clear line for each kind of bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts import load

from speak_neuro.training.metrics_log import read_metrics

Gtok = Callable[..., int]
ROOT = Path(__file__).resolve().parents[2]


def test_what_a_run_leaves(tiny_run: Path) -> None:
    names = {p.name for p in tiny_run.iterdir()}
    assert names == {
        *("config.json", "exemplar.json", "model.safetensors", "state.safetensors"),
        *("metrics.jsonl", "results.json", "curves.png", "state-20.safetensors"),
    }
    records = read_metrics(tiny_run)
    assert [r["step"] for r in records if "loss_lm" in r] == list(range(1, 41))
    assert [r["step"] for r in records if "valid_bpc" in r] == [20, 40]
    metrics = json.loads((tiny_run / "results.json").read_text(encoding="utf-8"))["metrics"]
    assert 1 < metrics["test_bpc"] < 8
    assert metrics["test_tokens"] > 0
    assert metrics["config"]["training"]["steps"] == 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"good text \xff\xfe bad", "byte 10"),
        (b"a short text", "characters"),
        (b"x" * 280, "a batch of 4 windows needs 260; give more text, or a smaller --window or --batch"),
    ],
    ids=["missing", "empty", "not UTF-8", "tiny", "short"],
)
def test_bad_text(
    gtok: Gtok, tmp_path: Path, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    assert gtok("--data", str(path), "--out", str(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert error.startswith("gtok.py: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--window", "1"], "window is 1; allowed: at least 2"),
        (["--heads", "3"], "width is 32; allowed: a multiple of heads, 3"),
        (["--decay", "2"], "decay is 2.0; allowed: 0.0 to 1.0"),
        (["--width", "33", "--heads", "3"], "width is 33; allowed: an even number"),
        (["--stop-after", "-1"], "--stop-after is -1; allowed: at least 1"),
        (["--json", "."], ".: is a folder; name a file"),
        (["--device", "toaster"], "--device is 'toaster'; allowed: auto, cpu, cuda, cuda:N"),
        (["--resume"], "holds no run to resume"),
        (["--resume", "--overwrite"], "exclude each other"),
        (["--tokenizer", "fixed", "--fixed-length", "65"], "--fixed-length is 65 and --window 64: no token would end"),
        (["--exemplar", "."], ".: is a folder; allowed: a regular file; give the exemplar.json that a run saved"),
        (["--exemplar", "nowhere.json"], "nowhere.json: no such file; give the exemplar.json that a run saved"),
    ],
)
def test_bad_flags(
    gtok: Gtok, tmp_path: Path, excerpt: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gtok("--data", str(excerpt), "--out", str(tmp_path / "run"), *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run").exists()


def test_an_unknown_flag_is_an_error(gtok: Gtok, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        gtok("--wings", "2")
    assert caught.value.code == 2
    assert "--wings" in capsys.readouterr().err


def test_a_run_is_not_written_over_unasked(
    gtok: Gtok, tiny_run: Path, excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tiny_run / "model.safetensors").read_bytes()
    assert gtok("--data", str(excerpt), "--out", str(tiny_run)) == 2
    assert "go on with --resume, replace it with --overwrite, or change --out" in capsys.readouterr().err
    assert (tiny_run / "model.safetensors").read_bytes() == before
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("do not delete", encoding="utf-8")
    assert gtok("--data", str(excerpt), "--out", str(tmp_path / "letters"), "--overwrite") == 2
    assert "exists and is not a run folder" in capsys.readouterr().err
    assert (tmp_path / "letters" / "dear.txt").exists()


def test_a_resume_with_other_data_is_refused(
    gtok: Gtok, excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert gtok("--data", str(excerpt), "--out", out, "--steps", "4", "--stop-after", "2") == 0
    other = tmp_path / "other.txt"
    other.write_text(excerpt.read_text(encoding="utf-8")[:-500], encoding="utf-8")
    capsys.readouterr()
    assert gtok("--data", str(other), "--out", out, "--steps", "4", "--resume") == 2
    error = capsys.readouterr().err
    assert "give the same --data to resume it" in error
    assert f"was trained on {excerpt} (1" in error
    assert f"this is {other} (1" in error


def test_bad_input_does_not_cost_the_run_that_it_was_to_replace(
    gtok: Gtok, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (tmp_path / "blank.txt").write_text(" \n" * 5000, encoding="utf-8")
    assert gtok("--data", str(tmp_path / "blank.txt"), "--out", str(run), "--overwrite") == 2
    assert "white space" in capsys.readouterr().err
    assert {p.name for p in run.iterdir()} == {p.name for p in tiny_run.iterdir()}


def test_what_a_resume_reads(gtok: Gtok, excerpt: Path, tmp_path: Path) -> None:
    """The text by its content, wherever it lies now; a run killed before its first checkpoint; new settings."""
    run, moved = tmp_path / "run", tmp_path / "moved.txt"
    assert gtok("--data", str(excerpt), "--out", str(run), "--steps", "6", "--stop-after", "3") == 0
    moved.write_bytes(excerpt.read_bytes())
    for name in ("state.safetensors", "model.safetensors", "exemplar.json"):
        (run / name).unlink()
    (run / ".state.safetensors.x1y2.tmp").write_bytes(b"half")
    assert gtok("--data", str(moved), "--out", str(run), "--resume", "--steps", "4") == 0
    assert [r["step"] for r in read_metrics(run) if "loss_lm" in r] == [1, 2, 3, 4]
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["config"]["training"]["steps"] == 4
    assert not list(run.glob(".*"))
    assert (run / "exemplar.json").exists()
    changed = excerpt.read_text(encoding="utf-8").swapcase()
    moved.write_text(changed, encoding="utf-8")
    assert gtok("--data", str(moved), "--out", str(run), "--resume") == 2


def test_a_run_too_short_for_acceptance_says_so(
    gtok: Gtok, tmp_path: Path, excerpt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """3,600 characters of training text are 14 batches of 4 x 64."""
    text = tmp_path / "text.txt"
    text.write_text(excerpt.read_text(encoding="utf-8")[:4000], encoding="utf-8")
    flags = ["--data", str(text), "--steps", "16"]
    cases = [
        ([], 0),
        (["--steps", "14"], 1),
        (["--proxy-steps", "2"], 0),
        (["--proxy-steps", "15"], 0),
        (["--proxy-steps", "16"], 1),
    ]
    for number, (more, lines) in enumerate(cases):
        capsys.readouterr()
        out = tmp_path / str(number)
        assert gtok(*flags, *more, "--out", str(out), "--evaluate-every", "100") == 0
        assert capsys.readouterr().err.count("decides nothing before step") == lines
        judged = [r["step"] for r in read_metrics(out) if "changed" in r]
        assert bool(judged) == (not lines)


def test_a_resume_is_of_the_same_system(
    gtok: Gtok, tiny_run: Path, excerpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    assert gtok("--data", str(excerpt), "--out", str(run), "--resume", "--width", "64", "--steps", "50") == 2
    assert "run: --width is 64 and was 32; leave it away to resume the run" in capsys.readouterr().err
    assert (run / "config.json").read_bytes() == (tiny_run / "config.json").read_bytes()
    run = tmp_path / "magnet"
    flags = ["--data", str(excerpt), "--out", str(run), "--tokenizer", "magnet", "--steps", "4"]
    assert gtok(*flags, "--stop-after", "2") == 0
    capsys.readouterr()
    assert gtok(*flags, "--resume", "--exemplar-steps", "3") == 2
    assert "magnet: --exemplar-steps is 3 and was 0; leave it away" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tokenizer", "magnet"], "--tokenizer is magnet and was speak; leave it away to resume the run"),
        (["--exemplar-vocabulary", "500"], "--exemplar-vocabulary is 500 and was 300; leave it away"),
        (["--seed", "2"], "--seed is 2 and was 1111; leave it away"),
        (["--steps", "2"], "has done 40 steps, more than --steps 2; give more to go on"),
    ],
)
def test_what_a_resume_may_not_change(
    gtok: Gtok, tiny_run: Path, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    assert gtok("--out", str(run), "--resume", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (run / "config.json").read_bytes() == (tiny_run / "config.json").read_bytes()


def test_a_resume_finds_the_text_itself(
    gtok: Gtok, tmp_path: Path, excerpt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a stopped run says to do next needs no --data."""
    text, run = tmp_path / "text.txt", tmp_path / "run"
    text.write_bytes(excerpt.read_bytes())
    assert gtok("--data", str(text), "--out", str(run), "--steps", "4", "--stop-after", "2") == 0
    assert f"go on with --resume --out {run}" in capsys.readouterr().out
    assert gtok("--resume", "--out", str(run), "--preset", "small") == 0
    assert "note: a resumed run keeps its own settings" in capsys.readouterr().err
    text.rename(tmp_path / "moved.txt")
    assert gtok("--resume", "--out", str(run)) == 2
    assert f"its text {text} is not here; say where it is with --data" in capsys.readouterr().err


def test_settings_that_make_no_difference_are_named(
    gtok: Gtok, tmp_path: Path, excerpt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def notes(*flags: str) -> list[str]:
        assert gtok("--data", str(excerpt), "--out", str(tmp_path / "run"), "--overwrite", "--steps", "2", *flags) == 0
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]

    assert notes() == []
    assert notes("--prior", "0.3") == [
        "note: --prior is a setting of dtp-gumbel and magnet and hnet; --tokenizer speak does not read it"
    ]
    assert notes("--tokenizer", "whitespace", "--decay", "0.5") == [
        "note: --decay is a setting of speak; --tokenizer whitespace does not read it"
    ]
    assert notes("--tokenizer", "magnet", "--prior", "0.3", "--script-priors", "latin=0.2,latn=0.1") == [
        "note: --script-priors names latn, of which the training part has no letter"
    ]


def test_a_resume_needs_none_of_the_settings(tmp_path: Path, gtok: Gtok) -> None:
    """A text long enough for the run's own batches, too short for the preset's."""
    text, run = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("a few words, and then a few more of them\n" * 40, encoding="utf-8")
    assert gtok("--data", str(text), "--out", str(run), "--steps", "4", "--stop-after", "2", "--batch", "2") == 0
    script = load("gtok")
    assert script.main(["--data", str(text), "--out", str(run), "--resume", "--quiet"]) == 0
    assert (run / "results.json").exists()


@pytest.mark.parametrize("name", ["he", "zh"])
def test_other_scripts(gtok: Gtok, tmp_path: Path, name: str) -> None:
    """Any language, with or without spaces, goes through training, evaluation and tokenizing."""
    from speak_neuro.corpus.reader import embedded_text
    from speak_neuro.inference.speak import Speak

    text = embedded_text(name)[:6000]
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8")
    assert gtok("--data", str(path), "--out", str(tmp_path / "run"), "--steps", "6", "--batch", "2") == 0
    assert "".join(Speak.load(tmp_path / "run").tokens(text[:500])) == text[:500]


def test_a_folder_of_texts(gtok: Gtok, tmp_path: Path, excerpt: Path) -> None:
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    half = excerpt.read_text(encoding="utf-8")[:8000]
    (tmp_path / "texts" / "a.txt").write_text(half, encoding="utf-8")
    (tmp_path / "texts" / "deep" / "b.txt").write_text(half[::-1], encoding="utf-8")
    arguments = ["--data", str(tmp_path / "texts"), "--out", str(tmp_path / "run"), "--steps", "3"]
    assert gtok(*arguments, "--json", str(tmp_path / "results.json")) == 0
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["metrics"]["test_bpc"] > 0


def test_a_folder_of_parts(gtok: Gtok, tmp_path: Path, excerpt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained and tested as they are, and a resume knows whether they were cut elsewhere."""
    text = excerpt.read_text(encoding="utf-8")
    parts, run = tmp_path / "parts", tmp_path / "run"
    parts.mkdir()
    cuts = {"train": (0, 9000), "valid": (9000, 9700), "test": (9700, 10200)}
    for name, (start, end) in cuts.items():
        (parts / f"{name}.txt").write_text(text[start:end], encoding="utf-8")
    flags = ["--data", str(parts), "--out", str(run), "--steps", "4"]
    assert gtok(*flags, "--stop-after", "2") == 0
    assert gtok(*flags, "--resume") == 0
    metrics = json.loads((run / "results.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["test_characters"] == 500
    assert metrics["data"]["parts"] == {"train": 9000, "valid": 700, "test": 500}
    (parts / "valid.txt").write_text(text[9000:9650], encoding="utf-8")
    (parts / "test.txt").write_text(text[9650:10200], encoding="utf-8")
    capsys.readouterr()
    assert gtok(*flags, "--resume") == 2
    assert "give the same --data to resume it" in capsys.readouterr().err


def test_faithful_restores_the_letter_and_flags_override_it(gtok: Gtok, tmp_path: Path, excerpt: Path) -> None:
    flags = ["--data", str(excerpt), "--steps", "2", "--faithful", "--reset-positive-weight", "3"]
    assert gtok(*flags, "--out", str(tmp_path / "run")) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["config"]
    training = config["training"]
    assert config["model"]["norm"] == "post"
    assert training["acceptance"] == "literal"
    assert training["reset_positive_weight"] == 3.0


def test_mixed_precision_leaves_the_neuron_in_float32(gtok: Gtok, tmp_path: Path, excerpt: Path) -> None:
    from speak_neuro.common.tensors import read_tensors

    flags = ["--data", str(excerpt), "--steps", "30", "--precision", "bfloat16"]
    assert gtok(*flags, "--out", str(tmp_path / "run")) == 0
    records = [r for r in read_metrics(tmp_path / "run") if "loss_lm" in r]
    assert records[-1]["loss_lm"] < records[0]["loss_lm"]
    tensors, _ = read_tensors(tmp_path / "run" / "model.safetensors")
    assert {str(value.dtype) for value in tensors.values()} == {"torch.float32"}


def test_an_unwritable_folder(gtok: Gtok, tmp_path: Path, excerpt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    assert gtok("--data", str(excerpt), "--out", str(tmp_path / "file" / "run")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / "file") in error
