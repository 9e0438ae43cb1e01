"""Files of other makers and of other commands, each with a reader whose result is equal for equal content."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import nir
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
from kinds import Kind, table_of

from speak_neuro.api.tokenizer import Tokenizer
from speak_neuro.common.files import write_json
from speak_neuro.common.tensors import write_tensors
from speak_neuro.export.files.folded_file import Folded, read_folded, write_folded
from speak_neuro.export.files.neuron_file import graph_digest, read_graph, write_graph
from speak_neuro.export.graphs.network import network_of
from speak_neuro.export.graphs.network_run import LayerRun
from speak_neuro.rtok.pretrained.hypernet import HypernetConfig, ZettHypernet
from speak_neuro.rtok.pretrained.pieces import PieceModel
from speak_neuro.rtok.tasks.uner import read_iob2
from speak_neuro.rtok.tasks.xnli import load
from speak_neuro.rtok.training.proxies import ProxyBook
from speak_neuro.rtok.training.run_folder import STATE, identity_of, read_description, read_state, write_description
from speak_neuro.sim.networks.cli import read_input
from speak_neuro.sim.networks.reference_file import PARTS, read_reference, save_reference
from speak_neuro.systems.run_folder import RUN
from speak_neuro.text.alphabet import Alphabet


def saved_kinds(run: Path, alphabet: Alphabet, place: Path) -> dict[str, Kind]:
    """A folded graph, a saved tokenizer, the results of a run of GTok."""
    points = 40
    taps = np.linspace(-1, 1, 2 * 2 * points, dtype=np.float32).reshape(2, 2, points)
    ones = np.ones(1, dtype=np.float32)
    names = ("decay", "gain", "threshold", "reset_scale")
    constants = {**dict.fromkeys(names, ones), "reset_potential": 0 * ones, "gate_threshold": 0 * ones}
    write_folded(place / "folded.nir", Folded.of(taps, constants, {}))
    Tokenizer.load(table_of(alphabet, place / "saved.table.safetensors")).save(place / "saved")
    results = Path(shutil.copy(run / "results.json", place / "results.json"))
    read_file = script("compare/records").read_file

    def folded() -> Any:
        read_folded(place / "folded.nir")
        return graph_digest(read_graph(place / "folded.nir"))

    def saved() -> Any:
        found = Tokenizer.load(place / "saved")
        return found.special_ids, found.tokens("a line of text")

    return {
        "folded.nir": Kind(place / "folded.nir", folded),
        "speak.json": Kind(place / "saved" / "speak.json", saved),
        "results.json": Kind(results, lambda: repr(read_file(results)), digest=False),
    }


def script(name: str) -> ModuleType:
    """A script of experiments/, whose tables have readers of their own."""
    path = Path(__file__).resolve().parents[1] / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.path[0]
    return module


def rtok_kinds(place: Path) -> dict[str, Kind]:
    """A run of RTok: its description, its checkpoint with the proxies of its examples, its results."""
    place.mkdir()
    settings: dict[str, Any] = {
        "task": "uner",
        "tokenizer": "speak",
        "train": "en_ewt:train",
        "config": {"training": {"seed": 1}},
    }
    write_description(place, {"settings": settings, "data": {"examples": 12, "sha256": "0" * 64}})
    book = ProxyBook({f"row{n}": (np.full(4, n, np.uint8), 30) for n in range(20)})
    write_tensors(place / STATE, book.tensors(), {RUN: identity_of(read_description(place)), "step": 1})
    metrics = {**settings, "score": "f1", "evaluations": {"en_ewt:dev": {"f1": 0.5, "average_length": 20.0}}}
    write_json(place / "results.json", {"device": "cpu", "metrics": metrics})
    read = script("compare_rtok/tables").read

    def state() -> Any:
        tensors, metadata = read_state(place, place / STATE)
        found = ProxyBook.from_tensors(tensors).tensors()
        return {name: value.numpy().tobytes() for name, value in found.items()}, metadata

    return {
        "RTok config.json": Kind(place / "config.json", lambda: read_description(place)),
        "RTok state.safetensors": Kind(place / STATE, state),
        "RTok results.json": Kind(place / "results.json", lambda: read(place / "results.json"), digest=False),
    }


def data_kinds(place: Path) -> dict[str, Kind]:
    """RTok's data: sentences, and pairs as lines of JSON and as Parquet."""
    sentences, pairs, table = place / "s.iob2", place / "pairs" / "en" / "test.jsonl", place / "en" / "test.parquet"
    rows = [f"{index}\tword{index}\t{'B-PER' if index == 2 else 'O'}\n" for index in range(1, 9)]
    for path in (pairs, table):
        path.parent.mkdir(parents=True)
    sentences.write_text("".join(f"# id = {number}\n{''.join(rows)}\n" for number in range(12)), encoding="utf-8")
    pair = {"premise": "The cat sat on the mat.", "hypothesis": "A cat sat."}
    both = [{**pair, "label": number % 3} for number in range(20)]
    pairs.write_text("".join(json.dumps(one) + "\n" for one in both), encoding="utf-8")
    parquet.write_table(pyarrow.Table.from_pylist(both), table)
    return {
        "sentences.iob2": Kind(sentences, lambda: read_iob2(sentences), digest=False),
        "pairs.jsonl": Kind(pairs, lambda: load(place / "pairs", "en", "test"), digest=False),
        "pairs.parquet": Kind(table, lambda: load(place, "en", "test"), digest=False),
    }


def encoder_kinds(place: Path) -> dict[str, Kind]:
    """What RTok takes of a trained encoder: its pieces in two forms, a hypernetwork's description and weights."""
    pieces, stored, described = place / "tokenizer.json", place / "xlmr.safetensors", place / "hypernet.json"
    vocabulary = [["<s>", 0.0], ["<unk>", 0.0], *([chr(97 + n % 26) * (1 + n // 26), -1.0 - n] for n in range(200))]
    model = {"type": "Unigram", "unk_id": 1, "vocab": vocabulary}
    pieces.write_text(json.dumps({"version": "1.0", "model": model}), encoding="utf-8")
    PieceModel.load(pieces).save(stored)
    values = {"hn_hidden_size": 768, "hn_intermediate_size": 1536, "original_vocab_size": 250002, "pad_token_id": 1}
    values |= {"hn_model_type": "roberta", "hn_rescale_embeddings": True, "hn_embed_using_source_embeddings": True}
    described.write_text(json.dumps({**values, "hn_n_extra_tokens": 161, "n_langs": 26}), encoding="utf-8")
    sizes = {"hn_hidden_size": 64, "hn_intermediate_size": 64, "original_vocab_size": 30, "hn_n_extra_tokens": 4}
    ZettHypernet(HypernetConfig(**sizes, pad_token_id=1, n_embd=16, hn_n_layers=1)).save(place / "hypernet")

    def model_of(path: Path) -> Any:
        found = PieceModel.load(path)
        return list(found.pieces), list(found.scores), found.unknown

    def hypernet() -> Any:
        found = ZettHypernet.load(place / "hypernet").state_dict()
        return {name: value.numpy().tobytes() for name, value in found.items()}

    return {
        "tokenizer.json": Kind(pieces, lambda: model_of(pieces), digest=False),
        "RTok pieces.safetensors": Kind(stored, lambda: model_of(stored), digest=False),
        "hypernetwork's config.json": Kind(described, lambda: HypernetConfig.read(described), digest=False),
        "hypernetwork's model.safetensors": Kind(place / "hypernet" / "model.safetensors", hypernet, digest=False),
    }


def network_kinds(place: Path) -> dict[str, Kind]:
    """A network of another tool, and what `speak-sim verify` and `speak-sim run --input` read beside it."""
    values = np.linspace(-1, 1, 200, dtype=np.float32).reshape(1, 50, 4)
    save_reference(place / "reference.npz", {"layer": LayerRun(values, values > 0, values)})
    np.save(place / "input.npy", values)
    nodes = {"input": nir.Input(np.array([4])), "layer": nir.Affine(values[0, :2], np.zeros(2, np.float32))}
    constants = {name: np.full(2, value, np.float32) for name, value in {"tau": 2e-4, "r": 1, "v_leak": 0}.items()}
    nodes |= {"neuron": nir.LIF(**constants, v_threshold=np.ones(2, np.float32)), "output": nir.Output(np.array([2]))}
    write_graph(place / "network.nir", nir.NIRGraph(nodes, list(pairwise(nodes))))

    def network() -> Any:
        graph = read_graph(place / "network.nir")
        network_of(graph)
        return graph_digest(graph)

    def reference() -> Any:
        return {
            (name, part): (getattr(run, part).tobytes(), getattr(run, part).dtype, getattr(run, part).shape)
            for name, run in read_reference(place / "reference.npz").items()
            for part in PARTS
        }

    def given() -> Any:
        found = read_input(place / "input.npy")
        return found.tobytes(), found.dtype, found.shape

    return {
        "network.nir": Kind(place / "network.nir", network, digest=False),
        "reference.npz": Kind(place / "reference.npz", reference, digest=False),
        "input.npy": Kind(place / "input.npy", given, digest=False),
    }
