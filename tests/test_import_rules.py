"""Who may import whom: read from the sources of the merged tree, and checked in fresh interpreters.

The merged tree has `export/` and `sim/` at the names they are imported by. Its unit is the folder; a file that lies
directly in one of the three packages is a unit of its own.
"""

import ast
import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the bottom up: a unit imports only what stands above it in this list. A new folder has to be entered here.
ORDER = """
errors
data
common
neuron.fused
neuron
config
text
pictures
corpus
table
testing
system_facts
model
tokenizer
supervision
systems
training
inference
cli
generate_cli
plot_cli
rtok
rtok.text
rtok.pretrained
rtok.tasks
rtok.tokenizers
rtok.training
api
doctor
export.files
export.graphs
export.modules
export.readers
export
export.graph
export.bounds
export.fold
export.table
export.trace
export.forms
export.check
export.write
export.cli
sim.job
sim.reaper
sim.runner
sim.processes
sim.processes.array_source
sim.processes.delay_line
sim.processes.linear_synapse
sim.processes.neuron_layer
sim.processes.recorder
sim.processes.table_synapse
sim.child
sim.parity
sim.fixed
sim.networks
sim
sim.tokenize
sim.summary
sim.quantize_cli
sim.cli
""".split()

# Unit or module -> packages it must not name in any import, at any depth.
TORCH = ("torch", "snntorch", "nirtorch")
NO_TORCH = ("text", "pictures", "corpus", "table", "export.files", "export.graphs", "sim")
NO_TORCH_MODULES = (
    "errors",
    "config",
    "common.arrays",
    "common.command",
    "common.files",
    "common.json_lines",
    "common.settings",
    "common.seeds",
    "common.numba_cache",
    "neuron.reference",
    "neuron.integer",
    "supervision.proxy",
    "supervision.acceptance",
)
NIRTORCH_ALLOWED = ("export.modules", "export.readers")
LAVA_ALLOWED = ("sim.child", "sim.processes")


def merged(root: Path) -> dict[str, Path]:
    """Every module below its import name, without `speak_neuro.`; "" is the package itself."""
    found = {}
    for folder, prefix in (("speak_neuro", ()), ("export", ("export",)), ("sim", ("sim",))):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            found[".".join(prefix + tuple(part for part in parts if part != "__init__"))] = path
    return found


def imported(path: Path) -> frozenset[str]:
    """Every module that a file names in an import, at any depth; relative imports count as an error."""
    return imports_in(path.read_text(encoding="utf-8"))


@functools.cache  # of the text: a copy of the tree differs from it by a file
def imports_in(source: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}: {ast.unparse(node)}"
            names.add(str(node.module))
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def forbidden(path: Path, *roots: str) -> list[str]:
    return sorted(n for n in imported(path) if any(n == root or n.startswith(root + ".") for root in roots))


def below(name: str, units: tuple[str, ...]) -> bool:
    return any(name == unit or name.startswith(unit + ".") for unit in units)


def unit_of(name: str, path: Path) -> str:
    """The folder of a module, or the module itself where it lies directly in speak_neuro/, export/ or sim/."""
    if path.name == "__init__.py" or path.parent.name in ("speak_neuro", "export", "sim"):
        return name
    return name.rpartition(".")[0]


def arrows(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Module -> the modules of the tree that it imports."""
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        inside = {n.removeprefix("speak_neuro").lstrip(".") for n in imported(path) if n.startswith("speak_neuro.")}
        found[name] = {other for other in inside & set(modules) if other and other != name}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other round in a ring, or nothing."""
    finished: set[str] = set()

    def follow(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in finished:
            return []
        for other in sorted(graph[name]):
            if ring := follow(other, [*trail, name]):
                return ring
        finished.add(name)
        return []

    return next((ring for name in sorted(graph) if (ring := follow(name, []))), [])


def violations(root: Path) -> list[str]:
    """Every departure from the rules in the tree at `root`, a line each."""
    modules = merged(root)
    graph = arrows(modules)
    found = [f"circle: {' -> '.join(ring)}"] if (ring := circle(graph)) else []
    for name, others in graph.items():
        unit = unit_of(name, modules[name])
        if name and unit not in ORDER:
            found.append(f"{name}: {unit} is not in ORDER; enter it above what imports it")
            continue
        for other in sorted(others):
            target = unit_of(other, modules[other])
            if name and target != unit and ORDER.index(target) > ORDER.index(unit):
                found.append(f"{name} imports {other}: upward")
    for name, path in modules.items():
        rules = []
        if below(name, NO_TORCH) or name in NO_TORCH_MODULES:
            rules += TORCH
        if not below(name, LAVA_ALLOWED):
            rules.append("lava")
        if not below(name, ("export", "sim")):
            rules += ["nir", "nirtorch", "speak_neuro.export", "speak_neuro.sim"]
        if below(name, ("export",)):
            rules += ["speak_neuro.sim", *([] if below(name, NIRTORCH_ALLOWED) else ["nirtorch"])]
        found += [f"{name} imports {other}: not allowed there" for other in forbidden(path, *rules)]
    return found


def test_the_tree() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [
        ("speak_neuro/text/alphabet.py", "from speak_neuro.text import segments as x", "circle: "),
        ("speak_neuro/common/files.py", "from speak_neuro.config import RunConfig as x", "upward"),
        ("speak_neuro/model/pooling.py", "def f():\n    from speak_neuro.training import fit", "upward"),
        ("speak_neuro/table/table.py", "import torch.nn", "table.table imports torch.nn: not allowed there"),
        ("speak_neuro/training/fit.py", "import nir", "training.fit imports nir: not allowed there"),
        ("export/graph.py", "from lava.magma import core", "export.graph imports lava.magma: not allowed there"),
        ("sim/parity/levels.py", "import lava", "sim.parity.levels imports lava: not allowed there"),
        ("sim/child/worker.py", "import torch", "sim.child.worker imports torch: not allowed there"),
        ("speak_neuro/fresh/one.py", "", "fresh.one: fresh is not in ORDER"),
    ],
)
def test_the_rules_would_notice(tmp_path: Path, module: str, line: str, message: str) -> None:
    """A copy of the tree with one import more."""
    for folder in ("speak_neuro", "export", "sim"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.xz", "__pycache__"))
    path = tmp_path / module
    path.parent.mkdir(exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{text}\n{line}\n", encoding="utf-8")
    if message == "circle: ":
        other = tmp_path / "speak_neuro/text/segments.py"
        other.write_text(other.read_text(encoding="utf-8") + "\nfrom speak_neuro.text import alphabet as y\n")
    assert any(message in one for one in violations(tmp_path))


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
        "speak_neuro.table.files",
        "speak_neuro.table.tokenizer",
        "speak_neuro.sim.parity.compare",
        "speak_neuro.sim.fixed.compare",
    ],
)
def test_no_torch_comes_along(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'snntorch', 'lava') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
