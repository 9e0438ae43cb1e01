"""A run under kills, damage, a second process and an explosion: nothing lost, nothing replaced in silence."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import embedded_excerpt, run_gtok

from speak_neuro.systems.run_folder import CONFIG, MODEL, STATE
from speak_neuro.training.run_lock import LOCK, locked


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_a_missing_state_is_no_new_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = (run / MODEL).read_bytes()
    (run / STATE).unlink()
    assert run_gtok("--out", str(run), "--resume", "--steps", "45") == 2
    assert "state.safetensors: no such file" in (error := capsys.readouterr().err)
    assert "--resume auto goes on from step 20" in error
    assert (run / MODEL).read_bytes() == model
    (run / "state-20.safetensors").unlink()
    assert run_gtok("--out", str(run), "--resume", "auto", "--steps", "45") == 2
    assert "no checkpoint is whole: begin anew with --overwrite" in capsys.readouterr().err
    assert (run / MODEL).read_bytes() == model


def test_auto_takes_the_newest_whole_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (run / MODEL).read_bytes()
    data = bytearray((run / STATE).read_bytes())
    data[len(data) // 2] ^= 4
    (run / STATE).write_bytes(data)
    assert run_gtok("--out", str(run), "--resume") == 2
    assert "damaged or changed since it was written" in (error := capsys.readouterr().err)
    assert "--resume auto goes on from step 20" in error
    assert run_gtok("--out", str(run), "--resume", "auto") == 0
    told = capsys.readouterr().err
    assert "damaged or changed since it was written" in told
    assert "state-20.safetensors: going on from step 20" in told
    assert (run / MODEL).read_bytes() == whole  # the twenty steps once more, bit for bit


@pytest.mark.parametrize("name", [MODEL, STATE])
def test_files_of_another_run_are_refused(
    run: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    text = tmp_path / "text.txt"
    text.write_text(embedded_excerpt(), encoding="utf-8")
    flags = ["--data", str(text), "--out", str(other), "--steps", "10", "--stop-after", "1", "--seed", "7"]
    assert run_gtok(*flags) == 0
    shutil.copy(run / name, other / name)
    capsys.readouterr()
    if name == STATE:
        assert run_gtok("--out", str(other), "--resume") == 2
        assert "belongs to another run than" in capsys.readouterr().err
    else:
        from speak_neuro.errors import SpeakError
        from speak_neuro.inference.speak import Speak

        with pytest.raises(SpeakError, match="belongs to another run than"):
            Speak.load(other)


def test_one_process_at_a_time(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\nfrom pathlib import Path\nfrom speak_neuro.training.run_lock import locked\n"
            "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)",
            str(run),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        before = {path.name: path.read_bytes() for path in run.iterdir()}
        for flag in ("--resume", "--overwrite"):
            assert run_gtok("--out", str(run), flag) == 2
            assert "another process trains in it" in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    finally:
        holder.kill()
        holder.communicate()
    with locked(run):  # freed by its holder's death
        assert (run / LOCK).exists()
    assert not (run / LOCK).exists()


def test_what_a_kill_leaves_before_the_first_rename_is_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / LOCK).touch()
    (folder / f".{CONFIG}.abc.tmp").write_bytes(b"{")
    text = tmp_path / "text.txt"
    text.write_text(embedded_excerpt(), encoding="utf-8")
    assert run_gtok("--data", str(text), "--out", str(folder), "--steps", "4", "--stop-after", "1") == 0
    assert not (folder / f".{CONFIG}.abc.tmp").exists()


@pytest.mark.parametrize("system", ["speak", "dtp-gumbel"])
def test_an_explosion_stops_with_its_place(system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text(embedded_excerpt(), encoding="utf-8")
    flags = ["--data", str(text), "--out", str(tmp_path / "run"), "--steps", "200", "--evaluate-every", "2"]
    flags += ["--learning-rate", "1e30", "--tokenizer-learning-rate", "1e30", "--warmup", "4", "--clip", "1e30"]
    assert run_gtok(*flags, "--tokenizer", system) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "in the windows that begin at characters" in error
    assert "lower --learning-rate" in error
