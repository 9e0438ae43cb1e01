"""The whole tokenizer as one NIR file: a one-hot character goes in, a boundary comes out. Needs no torch.

    current I_t = T_0[c_t] + T_1[c_{t-1}] + ... + T_{k-1}[c_{t-k+1}]       added from left to right, in float32
    gate    e_t likewise, from tables of its own

k = 1, a function of the character alone, is the chain of `export.files.neuron_file` with the V characters as features
and a bias of zero. For k > 1 each delay j has a stock Delay of j steps and a stock Linear (V -> 2N):

    input (V) ------------------> tap_00 (2N) --+-> sum_01 -+-> ... --> neuron (2N -> N) -> output (N)
    input (V) -> delay_01 (V) --> tap_01 (2N) --+           |
    input (V) -> delay_02 (V) --> tap_02 (2N) --------------+

NIR says that edges into one node are summed, not in which order, and float32 sums depend on it. So no node has more
than two incoming edges: a sum of two has no order, and `sum_j`, a Scale by one, is where the next tap comes in.

A character is an index; which code point it stands for is in the alphabet, a JSON file beside the graph. Running the
graph needs no alphabet, reading text does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from speak_neuro.common.array_types import Float32Array
from speak_neuro.common.digests import DIGEST, check_digest, digest_of
from speak_neuro.common.files import write_json
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import read_whole
from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import (
    ExportedNeuron,
    check_graph,
    constants_of,
    exported_of,
    graph_metadata,
    neuron_graph,
    neuron_node,
    read_graph,
    write_graph,
)
from speak_neuro.neuron.reference import gated_lif_run
from speak_neuro.text.alphabet import Alphabet


@dataclass(frozen=True)
class Folded:
    """N neurons whose inputs are sums over the last k characters of an alphabet of V."""

    taps: Float32Array
    """(k, 2N, V): for each delay, rows 0..N-1 of currents and N..2N-1 of gate logits, one column per character."""
    neuron: ExportedNeuron
    """The constants; its readout is the first tap, with a bias of zero."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Provenance only: execution never reads it."""

    def __post_init__(self) -> None:
        if self.taps.ndim != 3 or self.taps.shape[0] < 1 or self.taps.dtype != np.float32:
            raise ValueError(
                f"taps are {self.taps.dtype} of shape {self.taps.shape}; allowed: float32 (k, 2N, V), k at least 1"
            )
        if self.taps.shape[1] != 2 * self.neuron.neurons:
            raise ValueError(f"taps have {self.taps.shape[1]} lanes; allowed: {2 * self.neuron.neurons}")
        if not np.isfinite(self.taps).all():
            raise ValueError("taps hold NaN or infinity; allowed: finite numbers")

    @classmethod
    def of(cls, taps: Float32Array, constants: Mapping[str, Any], metadata: Mapping[str, Any]) -> Folded:
        """From tables and the neuron's constants, (N,) each. Zeros lose their sign: a sum with zero would take it."""
        taps = taps + np.float32(0)
        bias = np.zeros(taps.shape[1], dtype=np.float32)
        neuron = ExportedNeuron(weight=taps[0], bias=bias, **constants)
        return cls(taps, neuron, dict(metadata))

    @property
    def characters(self) -> int:
        """V, the unknown character included."""
        return int(self.taps.shape[2])

    @property
    def context(self) -> int:
        """k."""
        return int(self.taps.shape[0])

    def inputs(self, ids: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
        """Currents and gate logits (L, N) of a text of L characters; what lies before the text adds zero."""
        ids = np.asarray(ids, dtype=np.int64)
        lanes = self.taps[0][:, ids].T
        for delay in range(1, self.context):
            part = np.zeros_like(lanes)
            part[delay:] = self.taps[delay][:, ids[: max(0, ids.size - delay)]].T
            lanes = lanes + part
        current, gate = np.split(lanes, 2, axis=1)
        return np.ascontiguousarray(current), np.ascontiguousarray(gate)

    def spikes(self, ids: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Boundaries (L, N) of a text, by the numpy reference."""
        current, gate = self.inputs(ids)
        gate = np.where(gate > self.neuron.gate_threshold, 1, -1).astype(np.float32)
        return gated_lif_run(current[None], gate[None], self.neuron.parameters()).spikes[0]


def folded_graph(folded: Folded) -> nir.NIRGraph:
    """The NIR graph described at the top of this module."""
    if folded.context == 1:
        return neuron_graph(folded.neuron, folded.metadata)
    neurons, characters, last = folded.neuron.neurons, folded.characters, folded.context - 1
    nodes: dict[str, nir.NIRNode] = {
        "input": nir.Input(input_type={"input": np.array([characters])}),
        "neuron": neuron_node(folded.neuron),
        "output": nir.Output(output_type={"output": np.array([neurons])}),
    }
    edges = [("neuron", "output")]
    for delay, weight in enumerate(folded.taps):
        nodes[f"tap_{delay:02d}"] = nir.Linear(weight=weight)
        source = "input"
        if delay:
            source = f"delay_{delay:02d}"
            nodes[source] = nir.Delay(delay=np.full(characters, delay, dtype=np.float32))
            edges.append(("input", source))
        edges.append((source, f"tap_{delay:02d}"))
    before = "tap_00"
    for delay in range(1, folded.context):
        target = "neuron" if delay == last else f"sum_{delay:02d}"
        if delay != last:
            nodes[target] = nir.Scale(scale=np.ones(2 * neurons, dtype=np.float32))
        edges += [(before, target), (f"tap_{delay:02d}", target)]
        before = target
    return nir.NIRGraph(nodes=dict(sorted(nodes.items())), edges=sorted(edges), metadata=dict(folded.metadata))


def write_folded(path: str | os.PathLike[str], folded: Folded) -> None:
    """Write `folded` with reproducible bytes."""
    write_graph(path, folded_graph(folded))


def read_folded(path: str | os.PathLike[str]) -> Folded:
    """Read what `write_folded` wrote; any departure is one SpeakError line naming the file."""
    graph = read_graph(path)
    context = sum(isinstance(node, nir.Linear) for node in graph.nodes.values())
    if context == 0:
        exported = exported_of(path, graph)
        if exported.bias.any():
            raise SpeakError(
                f"{path}: the readout has a bias, so the graph begins at features, not at characters; "
                "write a folded graph with speak-export --fold"
            )
        check_graph(path, graph)
        return Folded(exported.weight[None], exported, exported.metadata)
    try:
        nodes = graph.nodes
        taps = np.stack([np.asarray(nodes[f"tap_{delay:02d}"].weight) for delay in range(context)])
        folded = Folded.of(taps, constants_of(nodes["neuron"]), graph_metadata(graph))
        expected = folded_graph(folded)
        same = sorted(map(tuple, graph.edges)) == expected.edges and set(nodes) == set(expected.nodes)
        same &= all(type(nodes[name]) is type(node) for name, node in expected.nodes.items())
        for name, node in expected.nodes.items() if same else ():
            for value in ("delay", "scale"):
                same &= np.array_equal(getattr(nodes[name], value, 0), getattr(node, value, 0))
    except (KeyError, AttributeError, ValueError) as error:
        raise SpeakError(
            f"{path} is not a folded tokenizer ({' '.join(str(error).split())}); write one with speak-export --fold"
        ) from error
    if not same:
        raise SpeakError(f"{path}: delays, taps and sums are not connected as speak-export --fold connects them")
    check_graph(path, graph)
    return folded


def alphabet_path(graph: str | os.PathLike[str]) -> Path:
    """Where the alphabet of a folded graph lies: folded.nir -> folded.alphabet.json."""
    return Path(graph).with_suffix(".alphabet.json")


def write_alphabet(path: str | os.PathLike[str], alphabet: Alphabet) -> None:
    """Write which code point each character index stands for."""
    value = alphabet.to_json()
    write_json(path, {**value, DIGEST: digest_of(value)})


def read_alphabet(path: str | os.PathLike[str], characters: int) -> Alphabet:
    """The alphabet of a folded graph with so many characters."""
    advice = "export the graph once more, with --fold"
    try:
        value = parse_json(read_whole(path, advice), os.fspath(path), advice)
    except FileNotFoundError:
        raise SpeakError(
            f"{path}: no such file; text needs the alphabet that speak-export --fold writes beside the graph: "
            "copy it here, or name it with --alphabet"
        ) from None
    try:
        alphabet = Alphabet.from_json(value)
    except ValueError as error:
        raise SpeakError(f"{path} is not an alphabet ({' '.join(str(error).split())})") from error
    if DIGEST in value:
        check_digest(value, None, path, advice)
    if len(alphabet) != characters:
        raise SpeakError(
            f"{path}: the alphabet has {len(alphabet)} characters, the graph takes {characters}; export both together"
        )
    return alphabet


def one_hot(ids: npt.ArrayLike, characters: int) -> Float32Array:
    """(L,) ids -> (L, V), one 1 per row: the spikes that a folded graph takes."""
    ids = np.asarray(ids, dtype=np.int64)
    result = np.zeros((ids.size, characters), dtype=np.float32)
    result[np.arange(ids.size), ids] = 1
    return result
