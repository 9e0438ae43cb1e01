"""The table of folders in docs/architecture.md, from the folders' own docstrings.

    python docs/make_tree.py            write it
    python docs/make_tree.py --check    exit code 1 when the page does not show the tree

Folders come in the order of `tests/test_import_rules.py`, in which each imports only what stands above it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree: python docs/make_tree.py -->\n", "<!-- end of the tree -->\n"
TOPS = {"speak_neuro": "", "export": "export", "sim": "sim"}


def table() -> str:
    """The rows."""
    rules = ast.parse((ROOT / "tests" / "test_import_rules.py").read_text(encoding="utf-8"))
    order: list[str] = next(
        ast.literal_eval(node.value.func.value).split()  # type: ignore[attr-defined]
        for node in rules.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER"
    )
    rows = {}
    for top, prefix in TOPS.items():
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / top).parts
            if parts[:1] == ("processes",) and len(parts) > 1:
                continue  # a folder for each process: Lava asks for it
            files = sorted(path.stem for path in init.parent.glob("*.py") if path.stem != "__init__")
            idea = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
            named = ", ".join(f"`{name}`" for name in files)
            folder = init.parent.relative_to(ROOT).as_posix()
            rows[".".join(filter(None, (prefix, *parts)))] = f"| `{folder}` | {idea.splitlines()[0]} | {named} |"
    known = sorted(rows, key=lambda name: order.index(name) if name in order else -1)
    return "\n".join(["| folder | one idea | files |", "|---|---|---|", *(rows[name] for name in known), ""])


def main(check: bool) -> int:
    """Write or compare."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    new = before + BEGIN + table() + END + after
    if check:
        return int(new != text)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
