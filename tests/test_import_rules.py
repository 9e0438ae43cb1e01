"""Who may import whom: read from the source, and checked in a fresh interpreter for what comes along transitively."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NUMPY_ONLY = {
    "reference",
    "integer",
    "segments",
    "alphabet",
    "config",
    "errors",
    "command",
    "metrics",
    "corpus",
    "proxy",
    "acceptance",
    "lines",
    "table",
    "table_text",
    "table_lines",
    "vocabulary",
    "compiled",
    "compiled_ids",
    "compiled_lines",
    "shards",
}
TORCH_ONLY = {"gumbel", "functional", "kernels", "triton_kernels", "losses", "entropy", "pooling", "attention"}
NO_TORCH_EXPORT = {
    "__init__",
    "read",
    "nir_node",
    "trace_file",
    "folded",
    "interpreter",
    "lower",
    "approximate",
    "costs",
}


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, at any depth; relative imports count as an error."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            names.add(str(node.module))
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def forbidden(path: Path, *roots: str) -> list[str]:
    return sorted(n for n in imported(path) if any(n == root or n.startswith(root + ".") for root in roots))


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", modules("speak_neuro"), ids=lambda p: p.stem)
def test_core(path: Path) -> None:
    assert not forbidden(path, "nir", "nirtorch", "lava", "speak_neuro.sim", "speak_neuro.export")
    if path.stem in NUMPY_ONLY:
        assert not forbidden(path, "torch", "snntorch")
    if path.stem in TORCH_ONLY:
        assert not forbidden(path, "snntorch", "speak_neuro.training.trainer")
    if path.stem == "train":
        assert not forbidden(path, "argparse")


@pytest.mark.parametrize("path", modules("export"), ids=lambda p: p.stem)
def test_export(path: Path) -> None:
    assert not forbidden(path, "lava", "nirtorch", "speak_neuro.sim")
    if path.stem in NO_TORCH_EXPORT:
        assert not forbidden(path, "torch", "snntorch")


@pytest.mark.parametrize("path", modules("sim"), ids=lambda p: "-".join(p.parts[-3:]))
def test_sim(path: Path) -> None:
    assert not forbidden(path, "torch", "snntorch", "nirtorch")
    if "processes" not in path.parts and path.stem != "worker":
        allowed = {"network", "fixed_network", "simulation", "guard"}
        assert path.stem in allowed or not forbidden(path, "lava")


@pytest.mark.parametrize(
    "module",
    [
        "speak_neuro",
        "speak_neuro.export",
        "speak_neuro.sim",
        "speak_neuro.export.cli",
        "speak_neuro.sim.cli",
        "speak_neuro.cli",
    ],
)
def test_imports_are_light(module: str) -> None:
    """Importing a package or a command loads nothing heavy: `--help` is instant and a missing extra no obstacle."""
    heavy = ["torch", "snntorch", "nir", "nirtorch", "lava", "h5py", "transformers", "numba", "ray", "pyarrow"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "speak_neuro.export.files.neuron_file",
        "speak_neuro.export.files.trace_file",
        "speak_neuro.sim.parity.compare",
        "speak_neuro.table.files",
        "speak_neuro.table.tokenizer",
        "speak_neuro.sim.fixed.compare",
    ],
)
def test_no_torch_comes_along(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'snntorch', 'lava') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_rules_would_notice(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from lava.magma import core\n    import torch.nn\n", encoding="utf-8")
    assert forbidden(path, "lava") == ["lava.magma", "lava.magma.core"]
    assert forbidden(path, "torch") == ["torch.nn"]
