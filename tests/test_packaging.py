"""Every package folder is listed, and no committed file names a machine or an index."""

import ast
import re
import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_listed() -> None:
    """setuptools finds no package by itself when folders are mapped: one that is not listed is not installed."""
    mapping = PROJECT["tool"]["setuptools"]["package-dir"]
    assert set(mapping) == set(PROJECT["tool"]["setuptools"]["packages"])
    listed = {(ROOT / folder).resolve() for folder in mapping.values()}
    found = {p.parent for top in ("speak_neuro", "export", "sim") for p in (ROOT / top).rglob("__init__.py")}
    assert found == listed


def test_nothing_follows_the_line_that_runs_a_script() -> None:
    """What does is not defined yet when the script runs, while an import finds it: other tests would pass."""
    found = []
    for path in (p for top in ("speak_neuro", "export", "sim", "experiments") for p in (ROOT / top).rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        if any(isinstance(node, ast.If) and "__name__" in ast.dump(node.test) for node in body[:-1]):
            found.append(str(path))
    assert not found


def test_version_is_stated_once_over() -> None:
    import speak_neuro

    assert speak_neuro.__version__ == PROJECT["project"]["version"]


def test_constraints_name_versions_only() -> None:
    lines = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 20
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+_-]+", pin) for pin in pins)
    names = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    wanted = PROJECT["project"]["dependencies"] + [
        item for extra in ("lava", "viz", "dev") for item in PROJECT["project"]["optional-dependencies"][extra]
    ]
    assert {re.split(r"[<>=\[ ]", item)[0].lower() for item in wanted} <= names


def test_make_help_runs_without_set_up() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "make demo" in done.stdout


def test_what_the_package_gives_at_its_front() -> None:
    """Every name is there, and the names alone load nothing heavy."""
    code = (
        "import sys, speak_neuro as s; assert not {'torch', 'numba'} & set(sys.modules); "
        "print(all(callable(getattr(s, name)) for name in s.__all__ if name != '__version__'), s.load.__qualname__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "Tokenizer.load"]
