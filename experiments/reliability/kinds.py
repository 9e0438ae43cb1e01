"""A file of each kind that a run holds or that is made of it, and a reader whose result is equal for equal content."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speak_neuro.common.digests import digest_of
from speak_neuro.common.settings import to_dict
from speak_neuro.corpus.character_store import CharacterStore
from speak_neuro.errors import SpeakError
from speak_neuro.export.cli import main as export
from speak_neuro.export.files.folded_file import read_alphabet, write_alphabet
from speak_neuro.export.files.neuron_file import graph_digest, read_graph, read_neuron
from speak_neuro.export.files.trace_file import read_trace
from speak_neuro.supervision.exemplar import UnigramExemplar
from speak_neuro.supervision.proxy_file import FileProxy, write_bits
from speak_neuro.systems.run_folder import load_system, read_run
from speak_neuro.table.load_vocabulary import load_vocabulary
from speak_neuro.table.pieces import Pieces
from speak_neuro.table.table import CompiledTable
from speak_neuro.table.vocabulary import Vocabulary
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.checkpoints import load_state
from speak_neuro.training.metrics_log import read_metrics
from speak_neuro.training.streamed_text import StreamedText


class Kind(NamedTuple):
    """A kind of file: one of it, and a reader whose result is equal for equal content."""

    file: Path
    read: Callable[[], Any]
    digest: bool = True
    """Whether the file holds, or its neighbours know, the SHA-256 of its content."""


def run_kinds(run: Path, place: Path) -> dict[str, Kind]:
    """The files of a run copied into `place`, its graph and its trace."""
    folder = Path(shutil.copytree(run, place / "run"))
    record, exemplar = read_run(folder), folder / "exemplar.json"
    if export(["--run", str(folder), "--out", str(place), "--rows", "20", "--quiet"]):
        raise SpeakError(f"{run}: cannot be exported; give a run of SPEAK")

    def tensors(found: dict[str, Any]) -> str:
        return digest_of({}, {name: np.asarray(value.float().numpy()) for name, value in found.items()})

    def config() -> Any:
        found = read_run(folder)
        return to_dict(found.config), found.alphabet.characters, found.record

    def state() -> Any:
        found, metadata, _, _ = load_state(folder, any_good=False)
        return tensors(found), metadata

    def trace() -> Any:
        found = read_trace(place / "trace.npz")
        return digest_of(found.meta, found.arrays())

    def graph() -> Any:
        read_neuron(place / "boundary.nir")
        return graph_digest(read_graph(place / "boundary.nir"))

    return {
        "config.json": Kind(folder / "config.json", config),
        "model.safetensors": Kind(
            folder / "model.safetensors", lambda: tensors(dict(load_system(read_run(folder)).state_dict()))
        ),
        "state.safetensors": Kind(folder / "state.safetensors", state),
        "exemplar.json": Kind(
            exemplar, lambda: UnigramExemplar.load(exemplar, record.record["exemplar_sha256"]).to_text()
        ),
        "metrics.jsonl": Kind(folder / "metrics.jsonl", lambda: read_metrics(folder)),
        "boundary.nir": Kind(place / "boundary.nir", graph),
        "trace.npz": Kind(place / "trace.npz", trace),
    }


def table_of(alphabet: Alphabet, path: Path) -> Path:
    """A table over an alphabet, written to `path`."""
    size = len(alphabet)
    current = np.linspace(-1, 1, size, dtype=np.float32)[None]
    CompiledTable(alphabet, current, np.ones((1, size), dtype=np.float32)).save(path)
    return path


def table_kinds(alphabet: Alphabet, place: Path) -> dict[str, Kind]:
    """Tables, the alphabet of a folded graph, vocabularies of tokens and of pieces."""
    path = place / "a.alphabet.json"
    write_alphabet(path, alphabet)
    table_of(alphabet, place / "table.safetensors")
    words = tuple(f"token{index}".encode() for index in range(300))
    Vocabulary(words, np.arange(300)).save(place / "vocabulary.safetensors")
    Pieces(words, np.arange(300)).save(place / "pieces.safetensors")

    def table() -> Any:
        found = CompiledTable.read(place / "table.safetensors")
        return found.current.tobytes(), found.gate.tobytes(), found.alphabet.characters, repr(found.neuron)

    def vocabulary(name: str) -> Kind:
        def read() -> Any:
            found = load_vocabulary(place / name)
            return found.tokens, found.counts.tobytes(), found.header()

        return Kind(place / name, read)

    return {
        "alphabet.json": Kind(path, lambda: read_alphabet(path, len(alphabet)).characters),
        "table.safetensors": Kind(place / "table.safetensors", table),
        "vocabulary.safetensors": vocabulary("vocabulary.safetensors"),
        "pieces.safetensors": vocabulary("pieces.safetensors"),
    }


def text_kinds(place: Path) -> dict[str, Kind]:
    """What is kept of a large text: its ids and index, the parts of a streamed one, the proxy's bits."""
    text = place / "text.txt"
    text.write_text("some text for a store " * 100, encoding="utf-8")
    CharacterStore.from_path(text, cache=place / "store")
    index = StreamedText.prepare(text, place / "cache", say=str).folder / "text.json"
    write_bits(place / "initial.bits", 3000, [np.arange(3000) % 3 == 0])
    snapshot = FileProxy.begin(place / "proxy.bits", place / "initial.bits").snapshot()

    def store() -> Any:
        found = CharacterStore.open(place / "store")
        return found.ids.tobytes(), found.alphabet.characters

    def streamed() -> Any:
        found = StreamedText.prepare(text, place / "cache", say=str)
        return found.sha256, [part.ids.tobytes() for part in (found.train, found.valid, found.test)]

    def proxy() -> Any:
        found = FileProxy.open(place / "proxy.bits")
        found.check_length(3000)
        found.restore(snapshot)
        return found.read([0], 3000).tobytes()

    return {
        "store.json": Kind(place / "store" / "store.json", store),
        "ids.bin": Kind(place / "store" / "ids.bin", store),
        "text.json": Kind(index, streamed),
        "proxy.bits": Kind(place / "proxy.bits", proxy),
    }
