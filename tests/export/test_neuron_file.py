"""The boundary neuron's NIR file: bytes, round trip, and one clear line for everything that is not one."""

import contextlib
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import trace_fixtures as fixtures

from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import (
    NEURON_FIELDS,
    ExportedNeuron,
    neuron_graph,
    read_neuron,
    write_graph,
    write_neuron,
)
from speak_neuro.export.files.nir_node import FIELDS, GatedResetLIF
from speak_neuro.neuron.reference import gated_lif_run


@pytest.fixture
def exported() -> ExportedNeuron:
    return fixtures.make_trace(grid=False)[0]


@pytest.fixture
def path(tmp_path: Path, exported: ExportedNeuron) -> Path:
    write_neuron(tmp_path / "boundary.nir", exported, {"producer": "test", "step": 3})
    return tmp_path / "boundary.nir"


def refusal(path: Path) -> str:
    with pytest.raises(SpeakError) as caught:
        read_neuron(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def change(path: Path, dataset: str, value: object) -> None:
    with h5py.File(path, "r+") as stream:
        if dataset in stream:
            del stream[dataset]
        stream[dataset] = value


def test_round_trip(path: Path, exported: ExportedNeuron) -> None:
    read = read_neuron(path)
    for name in ("weight", "bias", *NEURON_FIELDS):
        assert getattr(read, name).tobytes() == getattr(exported, name).tobytes(), name
    assert read.metadata == {"producer": "test", "step": 3}
    assert (read.neurons, read.features) == (1, 6)


def test_bytes_depend_on_the_values_alone(path: Path, exported: ExportedNeuron, tmp_path: Path) -> None:
    time.sleep(1.1)  # file formats that stamp the time count in seconds
    write_neuron(tmp_path / "again.nir", replace(exported), {"producer": "test", "step": 3})
    assert (tmp_path / "again.nir").read_bytes() == path.read_bytes()
    write_neuron(tmp_path / "back.nir", read_neuron(path))
    assert (tmp_path / "back.nir").read_bytes() == path.read_bytes()
    write_neuron(tmp_path / "other.nir", replace(exported, gain=exported.gain * 2), {"producer": "test", "step": 3})
    assert (tmp_path / "other.nir").read_bytes() != path.read_bytes()


def test_bytes_do_not_depend_on_the_order_in_which_things_are_named(
    path: Path, exported: ExportedNeuron, tmp_path: Path
) -> None:
    metadata = {"zeta": 1, "alpha": "a", "Ωmega": 2.5, "beta": -3}
    graph = neuron_graph(exported, metadata)
    turned = nir.NIRGraph(
        nodes=dict(reversed(graph.nodes.items())),
        edges=graph.edges[::-1],
        metadata=dict(reversed(metadata.items())),
    )
    write_graph(path, graph)
    write_graph(tmp_path / "turned.nir", turned)
    assert (tmp_path / "turned.nir").read_bytes() == path.read_bytes()
    write_neuron(tmp_path / "back.nir", read_neuron(path))
    assert (tmp_path / "back.nir").read_bytes() == path.read_bytes()
    assert read_neuron(path).metadata == metadata


def test_edges_are_sorted_and_types_check(exported: ExportedNeuron) -> None:
    graph = neuron_graph(exported)
    assert graph.edges == sorted(graph.edges)
    assert graph.check_types()


def test_metadata_is_not_needed(path: Path, exported: ExportedNeuron) -> None:
    with h5py.File(path, "r+") as stream:
        del stream["node/metadata"]
    read = read_neuron(path)
    assert read.metadata == {}
    assert read.weight.tobytes() == exported.weight.tobytes()


def test_failed_write_leaves_the_old_file(path: Path, exported: ExportedNeuron) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match="metadata 'list' is list"):
        write_neuron(path, exported, {"list": []})  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("size", [0, 7, 600, 4000])
def test_truncated(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    assert "is not a NIR file (" in refusal(path)


def test_plain_text(path: Path) -> None:
    path.write_text("weights: 1 2 3\n")
    assert "is not a NIR file (" in refusal(path)


def test_npz_under_the_name(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, weight=np.ones(3))
    assert "is not a NIR file (" in refusal(path)


def test_absent_and_folder(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.nir")
    (tmp_path / "folder.nir").mkdir()
    assert "is a folder; allowed: a regular file" in refusal(tmp_path / "folder.nir")


def test_other_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as stream:
        stream["data"] = [1, 2]
    assert "HDF5 file but not a NIR graph" in refusal(path)


def test_bit_flips_never_escape_as_another_error(path: Path) -> None:
    """Damage anywhere ends in a SpeakError, or in values that pass every check."""
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for position in rng.integers(0, len(whole), 30):
            damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with contextlib.suppress(SpeakError):
            read_neuron(path)
            continue
        refused += 1
    assert refused > 10


def test_newer_version(path: Path) -> None:
    change(path, "node/nodes/neuron/spec_version", 3)
    assert "spec_version is 3, this speak-neuro reads up to 2" in refusal(path)


def test_unknown_node_type(path: Path) -> None:
    change(path, "node/nodes/neuron/type", "Novelty")
    assert "node type that nir does not know" in refusal(path)


def test_nan_weights(path: Path, exported: ExportedNeuron) -> None:
    weight = exported.weight.copy()
    weight[1, 2] = np.nan
    change(path, "node/nodes/readout/weight", weight)
    assert "weight holds NaN or infinity" in refusal(path)


def test_wrong_types_and_shapes(path: Path, exported: ExportedNeuron) -> None:
    change(path, "node/nodes/readout/weight", exported.weight.astype(np.float64))
    assert "weight is float64; allowed: float32" in refusal(path)
    change(path, "node/nodes/readout/weight", exported.weight)
    change(path, "node/nodes/readout/bias", np.zeros(3, np.float32))
    assert "bias has shape (3,)" in refusal(path)
    change(path, "node/nodes/readout/weight", np.ones((3, 6), np.float32))
    assert "is not a consistent NIR graph" in refusal(path)


def test_missing_field(path: Path) -> None:
    with h5py.File(path, "r+") as stream:
        del stream["node/nodes/neuron/gate_threshold"]
    assert "lacks gate_threshold" in refusal(path)


def test_other_graphs(path: Path, exported: ExportedNeuron) -> None:
    nodes = dict(neuron_graph(exported).nodes)
    nir.write(path, nir.NIRGraph.from_list(nir.Linear(np.ones((2, 3), np.float32))))
    message = refusal(path)
    assert "allowed: Input -> Affine -> GatedResetLIF -> Output" in message
    nir.write(path, nir.NIRGraph.from_list(*[nir.Linear(np.eye(3, dtype=np.float32)) for _ in range(200)]))
    assert "the graph holds Input, 200 Linear, Output; allowed: " in refusal(path)
    second = GatedResetLIF(**{name: getattr(nodes["neuron"], name) for name in FIELDS})
    nodes["second"], nodes["more"] = second, nir.Affine(np.ones((2, 1), np.float32), np.ones(2, np.float32))
    edges = [("input", "readout"), ("readout", "neuron"), ("neuron", "more"), ("more", "second"), ("second", "output")]
    nir.write(path, nir.NIRGraph(nodes, edges))
    assert "2 GatedResetLIF nodes (neuron, second); allowed: one" in refusal(path)


def test_another_order(path: Path, exported: ExportedNeuron) -> None:
    nodes = {
        "input": nir.Input(input_type={"input": np.array([2])}),
        "neuron": neuron_graph(exported).nodes["neuron"],
        "readout": nir.Affine(np.ones((2, 1), np.float32), np.zeros(2, np.float32)),
        "output": nir.Output(output_type={"output": np.array([2])}),
    }
    nir.write(path, nir.NIRGraph(nodes, [("input", "neuron"), ("neuron", "readout"), ("readout", "output")]))
    assert "the edges are" in refusal(path)


def test_node_names_do_not_matter(path: Path, exported: ExportedNeuron) -> None:
    nodes = {
        f"n{i}": neuron_graph(exported).nodes[name] for i, name in enumerate(("output", "neuron", "input", "readout"))
    }
    nir.write(path, nir.NIRGraph(nodes, [("n2", "n3"), ("n3", "n1"), ("n1", "n0")]))
    assert read_neuron(path).weight.tobytes() == exported.weight.tobytes()


@pytest.mark.parametrize("mode", ["gated", "hard", "soft", "none", "hard/none"])
def test_modes_are_constant_gates_and_a_scale(mode: str, tmp_path: Path) -> None:
    """The file's neuron, read as gated, makes the run that the mode makes of the original gates."""
    original, trace = fixtures.make_trace(grid=False)
    rewritten, expected = fixtures.make_trace(grid=False, mode=mode)
    write_neuron(tmp_path / "g.nir", rewritten)
    parameters = replace(original.parameters(), mode=mode)  # type: ignore[arg-type]
    run = gated_lif_run(trace.current[..., None], trace.gate_logit[..., None], parameters, valid=trace.valid)
    np.testing.assert_array_equal(run.spikes[..., 0], expected.spikes)
    np.testing.assert_array_equal(np.where(trace.valid, run.membrane[..., 0], 0), expected.membrane)
    assert expected.spikes.sum() > 10
    assert read_neuron(tmp_path / "g.nir").reset_scale[0] == np.float32(0 if "none" in mode else 0.8)


def test_the_documented_reader_needs_no_package(path: Path) -> None:
    """The code in docs/nir-mapping.md, as printed there, makes the reference's spikes from the file alone."""
    page = (Path(__file__).parents[2] / "docs" / "nir-mapping.md").read_text(encoding="utf-8")
    start = page.index("    import h5py\n")
    code = textwrap.dedent(page[start : page.index("\n## ", start)])
    assert "speak_neuro" not in code
    names: dict[str, Any] = {}
    exec(code, names)
    _, trace = fixtures.make_trace(grid=False)
    spikes = names["run"](path, trace.features[0])
    np.testing.assert_array_equal(spikes[:, 0], trace.spikes[0])
    assert spikes.sum() > 3
