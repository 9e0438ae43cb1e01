"""What the documentation shows is run, and what it points to exists."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scripts import load

from speak_neuro.neuron import resets
from speak_neuro.neuron.reference import NeuronParameters, gated_lif_step
from speak_neuro.text.alphabet import Alphabet

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "tutorial.md"], ids=lambda p: p.name)
def test_python_blocks_run(page: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine", "tutorial/mine"):
        shutil.copytree(tiny_run, tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    found, names = blocks(page, "python"), {"__name__": "documentation"}
    assert found
    for code in found:
        exec(compile(code, str(page), "exec"), names)


def test_the_run_of_the_tutorial_is_the_one_it_trains() -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    work = re.findall(r"WORK=\$\{WORK:-(\S+)\}", text)
    assert {f"{work[0]}/mine"} == set(re.findall(r'Speak\.load\("(.*?)"\)', text))


def test_the_reader_of_the_nir_page_has_the_spikes_of_the_trace(tiny_run: Path, excerpt: Path, tmp_path: Path) -> None:
    """A reader that knows the page and HDF5 alone."""
    from speak_neuro.export.cli import main
    from speak_neuro.export.files.trace_file import read_trace

    flags = ["--text", str(excerpt), "--rows", "8", "--out", str(tmp_path), "--quiet"]
    assert main(["--run", str(tiny_run), *flags]) == 0
    page = (ROOT / "docs" / "nir-mapping.md").read_text(encoding="utf-8")
    found = re.search(r"^    import h5py\n(?:    .*\n|\n)*", page, re.MULTILINE)
    assert found
    names: dict[str, Any] = {}
    exec(compile(textwrap.dedent(found[0]), "nir-mapping.md", "exec"), names)
    trace = read_trace(tmp_path / "trace.npz")
    for row, length in enumerate(trace.length.tolist()):
        spikes = names["run"](tmp_path / "boundary.nir", trace.features[row, :length])
        assert (spikes[:, 0] != trace.spikes[row, :length].astype(bool)).mean() < 0.01  # float32 sums in another order


def test_the_table_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from table_fixtures import make_table

    from speak_neuro.table.vocabulary import Vocabulary

    make_table().save(tmp_path / "mine.table")
    Vocabulary.build({b"text": 3, b"a line": 2}, 258).save(tmp_path / "mine.vocabulary")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "docs" / "tables.md", "python")
    names: dict[str, Any] = {}
    exec(compile(code, "tables.md", "exec"), names)
    assert names["tokenizer"].decode(names["ids"]) == "a line of text"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_test_named_in_the_equations_exists() -> None:
    text = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named
    assert named - {path.stem for path in (ROOT / "tests").rglob("test_*.py")} == set()


def test_every_folder_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {p.parent for top in ("speak_neuro", "export", "sim") for p in (ROOT / top).rglob("__init__.py")}
    named = {str(folder.relative_to(ROOT)) for folder in folders if "processes" not in folder.parent.parts}
    assert {name for name in named if f"`{name}`" not in text and f"`{name}/`" not in text} == set()


def test_the_index_of_results_is_up_to_date() -> None:
    assert load("results_index").main(["--check"]) == 0


def test_the_architecture_shows_the_tree() -> None:
    command = [sys.executable, str(ROOT / "docs" / "make_tree.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run python docs/make_tree.py"


def test_the_walk_throughs_of_a_system_and_an_encoder_work() -> None:
    """The page's system cuts a text, its encoder looks back as far as it says."""
    names: dict[str, Any] = {"__name__": "extension"}
    for code in blocks(ROOT / "docs" / "howto-extend.md", "python"):
        exec(compile(code, "howto-extend.md", "exec"), names)
    alphabet = Alphabet("abcde ")
    ids = torch.from_numpy(alphabet.encode("a bed")[None].astype("int64"))
    assert names["Vowels"](alphabet)(ids).tolist() == [[True, False, False, True, False]]
    encoder, changed = names["Pairs"](len(alphabet), 4), ids.clone()
    changed[0, 1] = 3
    assert (encoder(ids) != encoder(changed)).any(-1).tolist() == [[False, True, True, False, False]]


def test_the_walk_throughs_enter_registries_that_look_so() -> None:
    sources = "".join((ROOT / "speak_neuro" / file).read_text("utf-8") for file in ("config.py", "neuron/resets.py"))
    lines = [line for code in blocks(ROOT / "docs" / "howto-extend.md", "diff") for line in code.splitlines()]
    assert len(lines) == 6
    assert [line for line in lines if line[1:] not in sources and not line.startswith("+")] == []


def test_every_block_of_code_is_run_by_a_test() -> None:
    """Pages with fenced Python or shell are those that tests name; a new one is added to its test."""
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for page in PAGES:
        if blocks(page, "python") or blocks(page, "bash") or blocks(page, "py"):
            assert f'"{page.name}"' in tests, page.name


def test_the_walk_through_of_a_reset_mode_is_one() -> None:
    """The page's row, put into the table, is computed by the reference as the page says."""
    text = (ROOT / "docs" / "howto-extend.md").read_text(encoding="utf-8")
    (row,) = re.findall(r'^\+ +("soft-to-zero": Reset\(.*\)),$', text, re.M)
    resets.RESETS.update(eval(f"{{{row}}}", vars(resets)))
    try:
        neuron = NeuronParameters(reset_potential=-0.5, mode="soft-to-zero")
        states = [
            gated_lif_step(np.full(1, u, np.float32), np.full(1, gate, np.float32), np.zeros(1, np.float32), neuron)[2]
            for u, gate in ((1.0, 1.0), (2.0, -1.0), (0.9, 1.0))
        ]
        expected = np.float32([-0.5, np.float32(2) - np.float32(0.8), 0.9])  # open, closed, no spike
        assert np.array_equal(np.concatenate(states), expected)
    finally:
        del resets.RESETS["soft-to-zero"]


def test_every_function_named_in_equations_and_trips_exists() -> None:
    """`module.name` or `module.Class.name`, the module by its own name alone; in the trips `Class.name` too."""
    equations, architecture = (
        (ROOT / "docs" / f"{page}.md").read_text("utf-8") for page in ("equations", "architecture")
    )
    defined = set()
    for file in [path for top in ("speak_neuro", "export", "sim") for path in (ROOT / top).rglob("*.py")]:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            for part in [node, *getattr(node, "body", [])]:
                if hasattr(part, "name"):
                    owner = getattr(node, "name", "")
                    defined |= {f"{file.stem}.{part.name}", f"{owner}.{part.name}", f"{file.stem}.{owner}.{part.name}"}
    named = set(re.findall(r"`((?:[a-z_]+\.)+(?:[A-Z]\w+\.)?[a-z_]+)`", equations))
    named = {re.sub(r"^(?:[a-z_]+\.)*(?=[a-z_]+\.(?:[A-Z]\w+\.)?[a-z_]+$)", "", name) for name in named}
    assert len(named) > 15
    trips = re.findall(
        r"^```\n(.*?)^```$", architecture.split("## Three trips")[1].split("## Decisions")[0], re.M | re.S
    )
    assert len(trips) == 3
    named |= {name for trip in trips for name in re.findall(r"(?<![\w.])([A-Za-z_]+\.(?:[A-Z]\w+\.)?_?[a-z_]+)", trip)}
    named = {name for name in named if not name.startswith(("torch", "parity.html", "boundary.nir", "trace.npz"))}
    assert named - defined == set()
