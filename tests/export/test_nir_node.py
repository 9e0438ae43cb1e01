"""The GatedResetLIF primitive: its checks, its registration, its file in processes with and without it."""

import subprocess
import sys
from pathlib import Path

import nir
import numpy as np
import pytest

from speak_neuro.errors import SpeakError
from speak_neuro.export.files import nir_node
from speak_neuro.export.files.nir_node import FIELDS, GatedResetLIF


def node(neurons: int = 2, **changes: object) -> GatedResetLIF:
    values = {"decay": 1.0, "gain": 1.0, "v_threshold": 1.0, "v_reset": 0.0, "reset_scale": 0.8, "gate_threshold": 0.0}
    arrays: dict[str, object] = {name: np.full(neurons, value, dtype=np.float32) for name, value in values.items()}
    return GatedResetLIF(**{**arrays, **changes})


def graph() -> nir.NIRGraph:
    return nir.NIRGraph.from_list(nir.Affine(np.ones((4, 3), np.float32), np.zeros(4, np.float32)), node())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", ["norse", "sinabs"])
def test_no_reader_leaves_the_neuron_out(reader: str) -> None:
    """norse and sinabs drop nodes that they don't know, without a word; not this one."""
    pytest.importorskip(reader)
    from norse.torch import from_nir as norse
    from sinabs.nir import from_nir as sinabs

    made = graph()
    with pytest.raises(SpeakError, match=r"would leave it out: use speak_neuro.export.readers"):
        norse(made) if reader == "norse" else sinabs(made, batch_size=1)


def test_lanes() -> None:
    assert node(3).input_type["input"].tolist() == [6]
    assert node(3).output_type["output"].tolist() == [3]
    assert graph().check_types()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay": np.ones(2)}, "decay is float64"),
        ({"gain": np.ones((2, 1), np.float32)}, "gain has shape"),
        ({"v_reset": np.zeros(3, np.float32)}, "v_reset has shape"),
        ({"reset_scale": np.array([0.8, np.nan], np.float32)}, "reset_scale is"),
        ({"decay": np.array([0.5, 1.5], np.float32)}, "decay is"),
        ({"v_threshold": np.array([1, 0], np.float32)}, "above v_reset"),
        ({"spec_version": 0}, "spec_version is 0"),
        ({"gate": 2}, "gate is 2; allowed: 0"),
    ],
)
def test_border(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        node(**changes)


def test_newer_version_is_refused_before_its_fields() -> None:
    with pytest.raises(SpeakError, match=r"spec_version is 3, this speak-neuro reads up to 2: update"):
        GatedResetLIF.from_dict({"type": "GatedResetLIF", "spec_version": 3, "novelty": 1})


def test_unknown_and_missing_fields() -> None:
    written = node().to_dict()
    with pytest.raises(ValueError, match="unknown fields tau"):
        GatedResetLIF.from_dict({**written, "tau": 1})
    del written["gain"]
    with pytest.raises(ValueError, match="lacks gain"):
        GatedResetLIF.from_dict(written)


def test_round_trip(tmp_path: Path) -> None:
    nir.write(tmp_path / "g.nir", graph())
    read = next(n for n in nir.read(tmp_path / "g.nir").nodes.values() if isinstance(n, GatedResetLIF))
    for name in FIELDS:
        assert getattr(read, name).tobytes() == getattr(node(), name).tobytes()
    assert read.spec_version == 1


def test_register_again_changes_nothing() -> None:
    known = vars(nir.ir)["__all_ir"]
    before = list(known)
    nir_node.register()
    assert known == before
    assert known.count("GatedResetLIF") == 1


def test_register_refuses_another_class_and_a_missing_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nir.ir, "GatedResetLIF", type("GatedResetLIF", (), {}))
    with pytest.raises(SpeakError, match="another GatedResetLIF"):
        nir_node.register()
    monkeypatch.undo()
    monkeypatch.setitem(vars(nir.ir), "__all_ir", None)
    with pytest.raises(SpeakError, match=r"no list of node types.*install 'nir"):
        nir_node.register()


def test_fresh_process_with_and_without_the_node(tmp_path: Path) -> None:
    path = tmp_path / "g.nir"
    nir.write(path, graph())
    code = "import nir, sys; {} print(sorted(type(n).__name__ for n in nir.read(sys.argv[1]).nodes.values()))"

    def read(first: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code.format(first), path], capture_output=True, text=True)

    known = read("import speak_neuro.export.files.nir_node;")
    assert known.returncode == 0, known.stderr
    assert known.stdout.strip() == "['Affine', 'GatedResetLIF', 'Input', 'Output']"
    unknown = read("")
    assert unknown.returncode == 1
    assert unknown.stderr.strip().splitlines()[-1].startswith("AssertionError")
