"""The boundary neuron's NIR file: written byte for byte reproducibly, read with every field checked. Needs no torch.

    input (D) -> readout, an Affine (D -> 2N) -> neuron, a GatedResetLIF (2N -> N) -> output (N)

Lanes 0..N-1 of the readout are the currents, N..2N-1 the gate logits. Nothing that execution needs is in the metadata.
"""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import h5py
import nir
import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import Float32Array
from speak_neuro.common.digests import DIGEST, digest_of
from speak_neuro.common.files import atomic_write
from speak_neuro.errors import SpeakError
from speak_neuro.export.files import hdf5_file, nir_node
from speak_neuro.neuron.reference import CONSTANTS, NeuronParameters

NEURON_FIELDS = (*CONSTANTS, "gate_threshold")
_ADVICE = "make one with speak-export"
CHAIN = ("Input", "Affine", "GatedResetLIF", "Output")


@dataclass(frozen=True)
class ExportedNeuron:
    """What a NIR file says: N neurons and their readout from D features, float32 throughout."""

    weight: Float32Array
    """(2N, D), rows 0..N-1 for the currents, N..2N-1 for the gate logits."""
    bias: Float32Array
    """(2N,), in the same order."""
    decay: Float32Array
    gain: Float32Array
    threshold: Float32Array
    reset_potential: Float32Array
    reset_scale: Float32Array
    gate_threshold: Float32Array
    """(N,) each, as are the five fields before it."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Provenance only: execution never reads it."""

    def __post_init__(self) -> None:
        neurons = np.shape(self.decay)[0] if np.ndim(self.decay) == 1 else 0
        features = np.shape(self.weight)[1] if np.ndim(self.weight) == 2 else 0
        if neurons == 0:
            raise ValueError(f"decay has shape {np.shape(self.decay)}; allowed: (N,), N at least 1")
        shapes = {"weight": (2 * neurons, features), "bias": (2 * neurons,)}
        shapes.update(dict.fromkeys(NEURON_FIELDS, (neurons,)))
        for name, shape in shapes.items():
            value = np.asarray(getattr(self, name))
            if value.dtype != np.float32:
                raise ValueError(f"{name} is {value.dtype}; allowed: float32")
            if value.shape != shape or 0 in shape:
                raise ValueError(f"{name} has shape {value.shape}; allowed: {shape} for {neurons} neuron(s)")
            if not np.isfinite(value).all():
                raise ValueError(f"{name} holds NaN or infinity; allowed: finite numbers")

    @property
    def neurons(self) -> int:
        """N, the number of neurons."""
        return int(self.decay.shape[0])

    @property
    def features(self) -> int:
        """D, the width of the readout's input."""
        return int(self.weight.shape[1])

    def parameters(self) -> NeuronParameters:
        """The constants for the numpy reference. The mode is `gated`: a file states other modes by constant gates."""
        return NeuronParameters(**{name: getattr(self, name) for name in CONSTANTS})


def neuron_node(exported: ExportedNeuron) -> nir_node.GatedResetLIF:
    """The neuron alone, without its readout."""
    return nir_node.GatedResetLIF(*(getattr(exported, name) for name in NEURON_FIELDS))


def constants_of(node: Any) -> dict[str, Any]:
    """The inverse: a node's fields by our names."""
    return {name: getattr(node, field) for name, field in zip(NEURON_FIELDS, nir_node.FIELDS, strict=True)}


def neuron_graph(exported: ExportedNeuron, metadata: Mapping[str, str | int | float] | None = None) -> nir.NIRGraph:
    """The NIR graph of `exported`: four nodes in a chain, edges sorted."""
    nodes = {
        "input": nir.Input(input_type={"input": np.array([exported.features])}),
        "neuron": neuron_node(exported),
        "output": nir.Output(output_type={"output": np.array([exported.neurons])}),
        "readout": nir.Affine(weight=exported.weight, bias=exported.bias),
    }
    edges = sorted([("input", "readout"), ("readout", "neuron"), ("neuron", "output")])
    return nir.NIRGraph(nodes=nodes, edges=edges, metadata=dict(metadata or {}))


def write_neuron(
    path: str | os.PathLike[str], exported: ExportedNeuron, metadata: Mapping[str, str | int | float] | None = None
) -> None:
    """Write `exported` as a NIR file. The same values give the same bytes; a failure leaves the old file as it was."""
    write_graph(path, neuron_graph(exported, exported.metadata if metadata is None else metadata))


def write_graph(path: str | os.PathLike[str], graph: nir.NIRGraph) -> None:
    """Write any NIR graph whose metadata is text and numbers, through a temporary file.

    HDF5 gives names back in the order of the alphabet. They are written in it, so that a graph that was read and is
    written again gives the same bytes.
    """
    metadata = graph_metadata(graph)
    for key, value in metadata.items():
        if not isinstance(value, (str, int, float)):
            raise ValueError(f"metadata {key!r} is {type(value).__name__}; allowed: text and numbers")
    # The digest is that of the graph as it will be read: the library changes types on the way.
    digest = graph_digest(nir.read(io.BytesIO(_serialised(graph, metadata)), type_check=False))
    data = _serialised(graph, {**metadata, DIGEST: digest})
    with atomic_write(path) as stream:
        stream.write(data)


def _serialised(graph: nir.NIRGraph, metadata: Mapping[str, Any]) -> bytes:
    ordered = nir.NIRGraph(
        nodes=dict(sorted(graph.nodes.items())),
        edges=sorted((source, target) for source, target in graph.edges),
        metadata=dict(sorted(metadata.items())),
        type_check=False,
    )
    buffer = io.BytesIO()
    nir.write(buffer, ordered)
    return buffer.getvalue()


def read_neuron(path: str | os.PathLike[str]) -> ExportedNeuron:
    """Read a file that `write_neuron` or any other NIR writer made of the four nodes above.

    Every departure is one SpeakError line naming the file: not HDF5, truncated, another HDF5 file, another graph,
    several neurons, wrong shapes or types, NaN, a newer spec version.
    """
    graph = read_graph(path)
    exported = exported_of(path, graph)
    check_graph(path, graph)
    return exported


def read_graph(path: str | os.PathLike[str]) -> Any:
    """Whatever graph a NIR file holds, the node of this package included; a SpeakError when it holds none."""
    nir_node.register()
    _require_nir(path)
    try:
        graph = nir.read(path)
    except SpeakError as error:
        raise SpeakError(f"{path}: {error}") from error
    except AssertionError as error:
        raise SpeakError(f"{path}: the graph holds a node type that nir does not know; {_expected()}") from error
    except Exception as error:  # in a damaged file h5py and nir fail in ways of their own, RuntimeError among them
        raise SpeakError(f"{path} is not a consistent NIR graph ({_one_line(error)})") from error
    if not isinstance(graph, nir.NIRGraph):
        raise SpeakError(f"{path}: the root is a {type(graph).__name__}, not a graph; {_expected()}")
    return graph


def graph_metadata(graph: Any) -> dict[str, Any]:
    """A graph's metadata without its digest; numbers come back as numpy scalars, which JSON does not take."""
    found = {k: v.item() if isinstance(v, np.generic) else v for k, v in (graph.metadata or {}).items()}
    found.pop(DIGEST, None)
    return found


def _require_nir(path: str | os.PathLike[str]) -> None:
    """Tell a NIR file from everything else before nir sees it: its own errors do not name the cause."""
    try:
        with hdf5_file.opened(path, _ADVICE) as stream:
            root = stream.get("node")
            if not isinstance(root, h5py.Group) or "type" not in root:
                raise SpeakError(f"{path} is an HDF5 file but not a NIR graph (it has no group 'node' with a type)")
    except SpeakError:
        raise
    except Exception as error:  # OSError for a foreign file, RuntimeError and others for a damaged one
        raise SpeakError(f"{path} is not a NIR file ({_one_line(error)})") from error


def graph_digest(graph: Any) -> str:
    """The digest of a graph: nodes with all their arrays, edges, metadata."""
    arrays: dict[str, npt.NDArray[Any]] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, part in value.items():
                add(f"{name}.{key}", part)
        elif isinstance(value, np.ndarray):
            arrays[name] = value
        elif isinstance(value, (bool, int, float, np.number, np.bool_)):
            arrays[name] = np.asarray(float(value))  # a number is read back as numpy's: the same value
        elif value is not None:
            arrays[name] = np.frombuffer(str(value).encode(), dtype=np.uint8)

    for name, node in graph.nodes.items():
        add(name, {"type": type(node).__name__, **{k: v for k, v in vars(node).items() if k != "metadata"}})
    header = {"edges": sorted(map(list, graph.edges)), "metadata": graph_metadata(graph)}
    return digest_of(header, arrays)


def check_graph(path: str | os.PathLike[str], graph: Any) -> None:
    """Refuse a graph that is not what was written; graphs of other writers hold no digest."""
    stated = graph.metadata or {}
    if DIGEST not in stated and any(re.fullmatch("[0-9a-f]{64}", str(value)) for value in stated.values()):
        raise SpeakError(f"{path}: the metadata's field {DIGEST} was damaged or renamed; {_ADVICE}")
    if DIGEST in stated and stated[DIGEST] != graph_digest(graph):
        raise SpeakError(
            f"{path}: {DIGEST} is {str(stated[DIGEST])[:12]}... in the metadata, not the graph's: it was damaged or "
            f"changed since it was written; {_ADVICE}"
        )


def exported_of(path: str | os.PathLike[str], graph: Any) -> ExportedNeuron:
    """The neuron of a graph of the four nodes; `path` names it in errors."""
    kinds: dict[str, list[str]] = {}
    for name, node in graph.nodes.items():
        kinds.setdefault(type(node).__name__, []).append(name)
    if len(kinds.get("GatedResetLIF", [])) > 1:
        neurons = ", ".join(sorted(kinds["GatedResetLIF"]))
        raise SpeakError(f"{path}: {len(kinds['GatedResetLIF'])} GatedResetLIF nodes ({neurons}); allowed: one")
    found = sorted(type(node).__name__ for node in graph.nodes.values())
    if found != sorted(CHAIN):
        counts = ", ".join(kind if len(names) == 1 else f"{len(names)} {kind}" for kind, names in sorted(kinds.items()))
        raise SpeakError(f"{path}: the graph holds {counts or 'no nodes'}; {_expected()}")
    names = [kinds[kind][0] for kind in CHAIN]
    edges = sorted((source, target) for source, target in graph.edges)
    if edges != sorted(itertools.pairwise(names)):
        raise SpeakError(f"{path}: the edges are {edges}; {_expected()}")
    readout, neuron = graph.nodes[names[1]], graph.nodes[names[2]]
    if neuron.spec_version > 1:
        raise SpeakError(
            f"{path}: node {names[2]} has a constant gate or the shape of a picture; allowed: (N,) and lanes"
        )
    try:
        weight, bias = np.asarray(readout.weight), np.asarray(readout.bias)
        exported = ExportedNeuron(weight, bias, **constants_of(neuron))
    except ValueError as error:
        raise SpeakError(f"{path}: {error}") from error
    return replace(exported, metadata=graph_metadata(graph))


def _expected() -> str:
    return f"allowed: {' -> '.join(CHAIN)}, as speak-export writes to boundary.nir"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
