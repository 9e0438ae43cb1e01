"""Files made to harm: links, references, false declarations, pipes. One line, at once, little memory."""

import functools
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import trace_fixtures as fixtures

from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import read_neuron, write_neuron
from speak_neuro.export.files.trace_file import read_trace, write_trace


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    write_neuron(tmp_path / "boundary.nir", fixtures.make_trace()[0])
    return tmp_path / "boundary.nir"


WEIGHT = "node/nodes/readout/weight"


def external_link(stream: h5py.File, place: Path) -> None:
    del stream[WEIGHT]
    stream[WEIGHT] = h5py.ExternalLink(str(place / "other.h5"), "/weight")


def soft_link(stream: h5py.File, place: Path) -> None:
    del stream[WEIGHT]
    stream[WEIGHT] = h5py.SoftLink("/node/nodes/readout/bias")


def virtual(stream: h5py.File, place: Path) -> None:
    del stream[WEIGHT]
    layout = h5py.VirtualLayout((2, 6), dtype="f4")
    layout[:] = h5py.VirtualSource(str(place / "other.h5"), "weight", shape=(2, 6))
    stream.create_virtual_dataset(WEIGHT, layout)


def external_storage(stream: h5py.File, place: Path) -> None:
    del stream[WEIGHT]
    stream.create_dataset(WEIGHT, (2, 6), dtype="u1", external=[("/etc/passwd", 0, 12)])


def reference(stream: h5py.File, place: Path) -> None:
    del stream[WEIGHT]
    stream.create_dataset(WEIGHT, data=stream["node"].ref, dtype=h5py.ref_dtype)


def circle(stream: h5py.File, place: Path) -> None:
    stream["node/nodes/again"] = stream["node"]


def deep(stream: h5py.File, place: Path) -> None:
    stream.create_group("node/" + "/".join(["deep"] * 40))


def large_weight(stream: h5py.File, place: Path) -> None:
    del stream[WEIGHT]
    stream.create_dataset(WEIGHT, (2, 500_000_000), dtype="f4", chunks=(2, 4096))


def many_edges(stream: h5py.File, place: Path) -> None:
    del stream["node/edges"]
    stream.create_dataset("node/edges", (200_000_000, 2), dtype=h5py.string_dtype(), chunks=(4096, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external_link, "is a ExternalLink"),
        (soft_link, "is a SoftLink"),
        (virtual, "keeps its values in other files"),
        (external_storage, "keeps its values in other files"),
        (reference, "is of type object"),
        (circle, "is a second name of one object"),
        (deep, "is nested deeper than 16 groups"),
        (large_weight, "declares (2, 500000000) of float32"),
        (many_edges, "declares (200000000, 2) of object"),
    ],
)
def test_a_graph_that_reaches_out_is_refused(
    graph: Path, tmp_path: Path, change: Callable[[h5py.File, Path], None], message: str
) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as stream:
        stream["weight"] = np.ones((2, 6), np.float32)
    with h5py.File(graph, "r+") as stream:
        change(stream, tmp_path)
    with pytest.raises(SpeakError) as caught:
        read_neuron(graph)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 15, 2**16, 2**63, 2**64 - 1])
def test_a_heap_of_texts_that_stands_still_is_refused(graph: Path, size: int) -> None:
    """Objects of these sizes keep the library's own walk in a loop that no signal ends, or lead it out of the heap."""
    data = bytearray(graph.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 : heap + 18] = bytes(2)  # its first object becomes free space, whose size has its header in it
    data[heap + 24 : heap + 32] = size.to_bytes(8, "little")
    graph.write_bytes(data)
    with pytest.raises(SpeakError, match=f"the heap of texts at byte {heap} is damaged"):
        read_neuron(graph)


def test_heaps_within_heaps_are_refused_at_once(graph: Path) -> None:
    """Each heap reaches to the end, and is an object of all before it: following every chain takes half an hour."""
    count, base = 100_000, graph.stat().st_size
    mark, one = b"GCOL\x01\0\0\0", struct.pack("<HHIQ", 1, 1, 0, 16)
    heaps = (mark + struct.pack("<Q", 32 * left - 16) for left in range(count, 0, -1))
    graph.write_bytes(graph.read_bytes() + one.join(heaps))
    began = time.process_time()
    with pytest.raises(SpeakError, match=f"the heap of texts at byte {base + 32} begins inside the one before it"):
        read_neuron(graph)
    assert time.process_time() - began < 1


def test_a_text_that_declares_more_than_there_is(graph: Path) -> None:
    """The library makes room for so many bytes before it sees that the text has less: one flipped bit, a gigabyte."""
    with h5py.File(graph) as stream:
        places = [stream[name].id.get_offset() for name in ("node/type", "node/edges")]
        size = stream["node/edges"].size
    whole = graph.read_bytes()
    for place, message in ((places[0], "node/type declares texts of 1,"), (places[1] + 16 * (size - 1), "node/edges")):
        changed = bytearray(whole)
        changed[place + 3] ^= 0x40
        graph.write_bytes(changed)
        with pytest.raises(SpeakError, match=message):
            read_neuron(graph)
    graph.write_bytes(whole)
    with h5py.File(graph, "r+") as stream:
        edges = stream["node/edges"][()]
        del stream["node/edges"]
        stream.create_dataset("node/edges", data=edges, dtype=h5py.string_dtype(), chunks=True)
    with pytest.raises(SpeakError, match="node/edges keeps texts in pieces"):
        read_neuron(graph)


def archive(path: Path, compression: int = zipfile.ZIP_DEFLATED, **changes: np.ndarray | tuple[int, ...]) -> None:
    """The trace at `path` with other arrays; a shape stands for an array of it that is declared and not there."""
    with np.load(path) as source:
        arrays: dict[str, object] = {name: source[name] for name in source.files}
    arrays.update(changes)
    with zipfile.ZipFile(path, "w", compression) as stream:
        for name, value in arrays.items():
            with stream.open(f"{name}.npy", "w", force_zip64=True) as file:
                if isinstance(value, tuple):
                    header = {"descr": "<f4", "fortran_order": False, "shape": value}
                    np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
                else:
                    np.lib.format.write_array(file, np.asarray(value))  # type: ignore[no-untyped-call]


@functools.cache
def grown() -> bytes:
    """A trace whose 600 megabytes of zeros take less than a hundredth of that."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.npz"
        write_trace(path, fixtures.make_trace()[1])
        archive(path, current=np.zeros((1000, 150_000), np.float32))
        return path.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(grown()), "allowed: up to 134,217,728"),
        (lambda path: archive(path, current=(0, 3 * 10**8)), "is empty with shape"),
        (lambda path: archive(path, current=(0, 2**40)), "is empty with shape"),
        (lambda path: archive(path, current=(10**6, 10**6)), "which are not its"),
        (lambda path: archive(path, **{"a\nb": np.zeros(1)}), r"an entry is called 'a\nb.npy'"),
        (lambda path: archive(path, zipfile.ZIP_LZMA), "packed otherwise than by deflate"),
        (lambda path: archive(path, zipfile.ZIP_BZIP2), "packed otherwise than by deflate"),
    ],
)
def test_a_trace_that_grows_is_refused(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "trace.npz"
    write_trace(path, fixtures.make_trace()[1])
    change(path)
    with pytest.raises(SpeakError) as caught:
        read_trace(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# Each file is read by a child of its own, which begins with the memory that the imports take.
PROGRAM = """
import os, resource, sys, time
from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import read_neuron
from speak_neuro.export.files.trace_file import read_trace
from speak_neuro.systems.run_folder import load_system, read_run
READERS = {"nir": read_neuron, "npz": read_trace, "run": lambda path: load_system(read_run(path))}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
for kind, reader, target in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    if os.fork():
        assert os.wait()[1] == 0
        continue
    before, began = peak(), time.process_time()
    try:
        READERS[reader](target)
    except SpeakError as error:
        print(kind, time.process_time() - began, peak() - before, flush=True)
    os._exit(0)
"""


def hostile_run(folder: Path, tiny_run: Path, kind: str) -> Path:
    """A copy of the run that declares another alphabet or another model than it has."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((tiny_run / name).read_bytes())
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if kind == "alphabet":
        points = [f"{point:x}" for point in [*range(0x20000, 0x20000 + 400_000), 0x20000 + 399_999]]
        values["alphabet"]["code_points"] = " ".join(points)
    else:
        values["config"]["model"].update({"inner": 100_000} if kind == "inner" else {"pre_layers": 256})
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def refused(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float]]:
    """Seconds and kilobytes until each file was refused."""
    folder, command = tmp_path_factory.mktemp("hostile"), [sys.executable, "-c", PROGRAM]
    for kind, damage in (("weights", large_weight), ("edges", many_edges)):
        path = folder / f"{kind}.nir"
        write_neuron(path, fixtures.make_trace()[0])
        with h5py.File(path, "r+") as stream:
            damage(stream, folder)
        command += [kind, "nir", str(path)]
    (folder / "trace.npz").write_bytes(grown())
    command += ["archive", "npz", str(folder / "trace.npz")]
    for kind in ("inner", "layers", "alphabet"):
        command += [kind, "run", str(hostile_run(folder / kind, tiny_run, kind))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {kind: (float(seconds), float(kilobytes)) for kind, seconds, kilobytes in lines}


@pytest.mark.parametrize("kind", ["weights", "edges", "archive", "inner", "layers", "alphabet"])
def test_refused_within_a_second_and_little_memory(refused: dict[str, tuple[float, float]], kind: str) -> None:
    seconds, kilobytes = refused[kind]
    assert seconds < 1
    assert kilobytes < 300_000


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_is_no_file(tmp_path: Path, tiny_run: Path, name: str) -> None:
    from speak_neuro.systems.run_folder import load_system, read_run

    for part in ("config.json", "model.safetensors"):
        (tmp_path / part).write_bytes((tiny_run / part).read_bytes())
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(SpeakError, match=f"{name}: is a named pipe; allowed: a regular file"):
        load_system(read_run(tmp_path))


@pytest.mark.parametrize("reader", [read_neuron, read_trace])
def test_a_pipe_or_a_device_is_no_graph_and_no_trace(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a named pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(SpeakError, match=f"is {kind}; allowed: a regular file"):
            reader(path)
