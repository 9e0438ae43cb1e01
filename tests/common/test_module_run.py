"""`python -m` of every module: it either is a command or says that it is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import speak_neuro
from speak_neuro.common.module_run import refuse_library

ROOT = Path(speak_neuro.__file__).parent


def modules() -> list[str]:
    files = [path.relative_to(ROOT.parent).with_suffix("") for path in ROOT.rglob("*.py")]
    return sorted(".".join(path.parts) for path in files if path.name != "__init__")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("flags", [("-m",), ("-I", "-m"), ("-Wignore", "-m"), ("-Im",)])
def test_a_library_module_says_so(flags: tuple[str, ...]) -> None:
    done = run(*flags, "speak_neuro.training.trainer", "--help")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "speak_neuro.training.trainer: a module to import, no command; the commands are speak-train, " in done.stderr


def test_a_command_runs() -> None:
    done = run("-m", "speak_neuro.cli", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: speak-tokenize")


def test_what_does_not_exist_is_python_s_to_say() -> None:
    assert "No module named speak_neuro.train" in run("-m", "speak_neuro.train").stderr
    assert "No module named speak_neuro.nothing" in run("-m", "speak_neuro.nothing").stderr


def test_another_program_with_our_name_among_its_arguments() -> None:
    code = "import sys; sys.argv = sys.argv[1:]; import speak_neuro; print(speak_neuro.__version__)"
    assert run("-c", code, "speak_neuro.training.trainer").stdout.strip() == speak_neuro.__version__


def test_every_module_is_the_one_or_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Python's own list of files against what the module's text says: no module runs in silence."""
    refused = []
    for name in modules():
        try:
            refuse_library(["-m", name])
        except SystemExit:
            refused.append(name)
    left = set(modules()) - set(refused)
    assert {"speak_neuro.cli", "speak_neuro.training.trainer"} & left == {"speak_neuro.cli"}
    for name in left:
        text = (ROOT.parent / Path(*name.split("."))).with_suffix(".py").read_text(encoding="utf-8")
        assert "main(" in text.split('\nif __name__ == "__main__":')[1], name
    assert capsys.readouterr().err.count("\n") == len(refused) > 50
