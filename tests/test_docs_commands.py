"""Every command of the documentation is one that exists, and the pages for users run as they stand.

What takes minutes is marked slow: `make test-docs` runs it, and continuous integration that.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import scripts

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {
    "speak-doctor": "speak_neuro.doctor",
    "speak-export": "speak_neuro.export.cli",
    "speak-generate": "speak_neuro.generate_cli",
    "speak-plot": "speak_neuro.plot_cli",
    "speak-sim": "speak_neuro.sim.cli",
    "speak-tokenize": "speak_neuro.cli",
    "speak-train": "speak_neuro.training.command",
}
ALL_FLAGS = ("speak-train", "experiments/gtok.py")


def commands(page: Path) -> Iterator[str]:
    """Lines of code blocks that start a command of ours, continuation lines joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = [code for _, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
    indented = re.findall(r"^(?:    |\t)(.+)$", text, re.MULTILINE)
    inline = re.findall(r"`((?:python experiments/|speak-\w+ )[^`]+)`", text)
    for line in [*"\n".join(fenced).splitlines(), *indented, *inline]:
        for part in re.split(r"\s(?:\||&&|;)\s", line.split("  #")[0]):
            if part.strip().startswith("pip "):  # the distribution has the name of no command
                continue
            found = re.search(r"(?:^|\s)((?:python experiments/\S+\.py|speak-\w+)(?=\s|$).*)", part.strip())
            if found:
                yield found[1].strip()


@functools.cache
def help_of(command: str, *sub: str) -> str:
    """What a command's --help prints; empty where there is no such command. In this process: torch is loaded once."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(io.StringIO()), pytest.raises(SystemExit):
        # Training's --help shows the flags that matter first.
        entry(command)([*sub, "--help-all" if command in ALL_FLAGS else "--help"])
    return shown.getvalue()


def entry(command: str) -> Callable[[list[str]], int]:
    """`main` of a script or of an installed command."""
    if command in COMMANDS:
        return importlib.import_module(COMMANDS[command]).main  # type: ignore[no-any-return]
    return scripts.load(command.removeprefix("experiments/").removesuffix(".py")).main  # type: ignore[no-any-return]


def whole_help(words: list[str]) -> str:
    """Help of the command that `words` start, and of its subcommand."""
    start, rest = (words[1], words[2:]) if words[0] == "python" else (words[0], words[1:])
    sub = next((word for word in rest if not word.startswith("-")), "")
    return help_of(start) + (help_of(start, sub) if re.fullmatch(r"[a-z]+", sub) else "")


def unknown(words: list[str], shown: str) -> list[str]:
    """Flags among `words` that a help text does not have; --no-x counts as --x."""
    flags = {word.split("=")[0] for word in words if re.fullmatch(r"--[a-z][\w-]*(=.*)?", word)}
    return sorted(flag for flag in flags if flag not in shown and flag.replace("--no-", "--", 1) not in shown)


def wrong_commands(page: Path) -> list[str]:
    """Lines of a page that no parser of ours would take, each with its reason."""
    wrong = []
    for line in commands(page):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # prose about a command, with an apostrophe
        if words[0] == "python" and not (ROOT / words[1]).is_file():
            wrong.append(f"{line}: no such script")
        elif words[0] != "python" and words[0] not in COMMANDS:
            wrong.append(f"{line}: no such command")
        else:
            own, _, handed_on = " ".join(map(shlex.quote, words)).partition(" -- ")
            wrong += [f"{line}: no {flag}" for flag in unknown(shlex.split(own), whole_help(words))]
            handed = shlex.split(handed_on)  # compare_rtok/runs.py gives what stands behind -- to rtok.py
            wrong += [
                f"{line}: no {flag}" for flag in unknown(handed, help_of("experiments/rtok.py") if handed else "")
            ]
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_flags_exist(page: Path) -> None:
    assert wrong_commands(page) == []


def test_the_check_would_notice(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    lines = ["speak-plot --run a --frames 3   # no", "python experiments/nothing.py --x", "speak-plot --run a"]
    page.write_text("".join(f"    {line}\n\n" for line in lines), encoding="utf-8")
    assert wrong_commands(page) == ["speak-plot --run a --frames 3: no --frames", f"{lines[1]}: no such script"]


HOW_TO = ["howto-corpus.md", "howto-resume.md", "howto-pictures.md", "howto-generate.md", "howto-lava.md"]


def needs_lava() -> None:
    if importlib.util.find_spec("lava") is None:
        pytest.skip("lava-nc is not installed (it needs Python 3.10)")


def run_blocks(name: str, work: Path, commands: Path) -> subprocess.CompletedProcess[str]:
    """The page's shell blocks one after the other, in the checkout, with the files that they make in `work`."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks
    done = subprocess.run(
        ["bash", "-c", "set -euo pipefail\n" + "\n".join(blocks)],
        cwd=ROOT,
        env={**os.environ, "WORK": str(work), "PATH": f"{commands}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.slow
@pytest.mark.parametrize("name", HOW_TO)
def test_how_to_pages_run(name: str, tiny_run: Path, excerpt: Path, tmp_path: Path) -> None:
    if name == "howto-lava.md":
        needs_lava()
    work = tmp_path / "work"
    shutil.copytree(tiny_run, work / "mine")
    shutil.copy(excerpt, work / "my.txt")
    run_blocks(name, work, tool_folder(tmp_path))


@pytest.mark.slow
@pytest.mark.lava
def test_the_tutorial_runs(tmp_path: Path) -> None:
    needs_lava()
    done = run_blocks("tutorial.md", tmp_path / "work", tool_folder(tmp_path))
    assert "0 mismatches" in done.stdout
    assert (tmp_path / "work" / "mine" / "parity.html").is_file()


def tool_folder(folder: Path) -> Path:
    """A folder with `python` and our commands, all of this interpreter."""
    commands = folder / "bin"
    commands.mkdir()
    lines = {"python": '"$@"', **{name: f'-m {module} "$@"' for name, module in COMMANDS.items()}}
    for name, rest in lines.items():
        # Not a symlink: the interpreter would not find its virtual environment.
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {rest}\n', encoding="utf-8")
        (commands / name).chmod(0o755)
    return commands


@pytest.mark.parametrize("name", ["howto-pictures.md", "howto-generate.md"])
def test_how_to_python_runs(name: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_run, tmp_path / "runs" / "tutorial" / "mine")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    names = {"__name__": "documentation"}
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        exec(compile(code, name, "exec"), names)
    assert len(names) > 3


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'speak-neuro[docs]'")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in cells if cell.outputs] == []  # committed without
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    nbclient.NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("0 mismatches" in output.get("text", "") for output in outputs)
    assert any('class="speak-tokens"' in output.get("data", {}).get("text/html", "") for output in outputs)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocs_jupyter") is None:
        pytest.skip("mkdocs is not installed: pip install 'speak-neuro[docs]'")
    merged = tmp_path / "merged"
    shutil.copytree(ROOT / "speak_neuro", merged / "speak_neuro", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("export", "sim"):
        shutil.copytree(ROOT / name, merged / "speak_neuro" / name, ignore=shutil.ignore_patterns("__pycache__"))
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config = config.replace("docs_dir: docs", f"docs_dir: {ROOT / 'docs'}").replace("build/typecheck", str(merged))
    (tmp_path / "mkdocs.yml").write_text(config, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr, done.stderr[-3000:]
    pages = {page.name for page in (tmp_path / "site").glob("*.html")}
    assert {page.stem + ".html" for page in (ROOT / "docs").glob("*.md")} <= pages
    for page in (tmp_path / "site").rglob("*.html"):  # nothing is fetched from elsewhere
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text(encoding="utf-8")
        )
        assert [address for address in loaded if "canonical" not in address] == [], page.name
