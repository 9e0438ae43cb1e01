"""trace.npz: bytes, round trip, and one clear line for everything that is not one."""

import io
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trace_fixtures as fixtures

from speak_neuro.errors import SpeakError
from speak_neuro.export.files.trace_file import ARRAYS, Trace, read_trace, write_trace


@pytest.fixture
def trace() -> Trace:
    return fixtures.make_trace()[1]


@pytest.fixture
def path(tmp_path: Path, trace: Trace) -> Path:
    write_trace(tmp_path / "trace.npz", trace)
    return tmp_path / "trace.npz"


def refusal(path: Path) -> str:
    with pytest.raises(SpeakError) as caught:
        read_trace(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def rewrite(path: Path, **changes: Any) -> None:
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays.update(changes)
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def test_round_trip(path: Path, trace: Trace) -> None:
    read = read_trace(path)
    for name in ARRAYS:
        assert getattr(read, name).tobytes() == getattr(trace, name).tobytes(), name
        assert getattr(read, name).shape == getattr(trace, name).shape
    assert read.meta == {"device": "test", "schema_version": 2}
    assert [read.text(row) for row in range(read.sequences)] == fixtures.TEXTS


def test_plain_numpy_reads_it(path: Path, trace: Trace) -> None:
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive.files) == {*ARRAYS, "meta"}
        np.testing.assert_array_equal(archive["features"], trace.features)
        assert json.loads(str(archive["meta"]))["schema_version"] == 2


def test_bytes_depend_on_the_values_alone(path: Path, trace: Trace, tmp_path: Path) -> None:
    time.sleep(2.1)  # zip archives stamp the time in steps of two seconds
    write_trace(tmp_path / "again.npz", trace)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()
    write_trace(tmp_path / "back.npz", read_trace(path))
    assert (tmp_path / "back.npz").read_bytes() == path.read_bytes()


def test_entropy_is_kept_and_checked(trace: Trace, tmp_path: Path) -> None:
    fields = fixtures.fields(trace)
    bits = np.where(trace.valid, np.float32(1.5), np.float32(0)).astype(np.float32)
    write_trace(tmp_path / "t.npz", Trace(**{**fields, "entropy": bits}))
    found = read_trace(tmp_path / "t.npz")
    assert found.entropy is not None
    assert found.entropy.tobytes() == bits.tobytes()
    assert found.meta["schema_version"] == 3
    write_trace(tmp_path / "again.npz", found)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "t.npz").read_bytes()
    rewrite(tmp_path / "t.npz", entropy=bits + np.float32(0.25) * trace.valid.astype(np.float32))
    refusal(tmp_path / "t.npz")  # the digest covers it
    with pytest.raises(ValueError, match="entropy has shape"):
        Trace(**{**fields, "entropy": bits[:, 1:]})
    with pytest.raises(ValueError, match="entropy is not zero at and after a row's length"):
        Trace(**{**fields, "entropy": bits + 1})


def test_no_text_at_all(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.npz", fixtures.make_trace([])[1])
    assert read_trace(tmp_path / "t.npz").sequences == 0


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated(path: Path, keep: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    assert "is not a trace" in refusal(path)


def test_damaged(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    for position in range(200, 400):
        whole[position] ^= 0x55
    path.write_bytes(whole)
    assert "is not a trace that can be read" in refusal(path)


def test_other_files(path: Path, tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.npz")
    path.write_text("text")
    assert "is not a trace" in refusal(path)
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    path.write_bytes(buffer.getvalue())
    assert "is not a trace" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "lacks current, gate_logit" in refusal(path)


def test_no_pickle(path: Path) -> None:
    rewrite(path, current=np.array([object()]))
    assert "is not a trace that can be read" in refusal(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": None}, "it lacks features"),
        ({"meta": np.array("not json")}, "meta: not valid JSON"),
        ({"meta": np.array("[1]")}, "meta is a list"),
        ({"meta": np.array('{"schema_version": 9}')}, "schema_version is 9, this speak-neuro reads 1 to 3"),
        ({"meta": np.array('{"schema_version": true}')}, "schema_version is True"),
        ({"meta": np.array('{"schema_version": -5}')}, "schema_version is -5"),
        ({"meta": np.array("[" * 100_000)}, "nested too deeply"),
        ({"decay": np.ones(1, np.float32)}, "decay is float32 with 1 dimensions"),
        ({"threshold": np.float64(1)}, "threshold is float64"),
        ({"reset_scale": np.float32(np.inf)}, "reset_scale holds NaN or infinity"),
        ({"length": np.arange(3)}, "length has shape"),
        ({"length": np.full(8, 90)}, "length runs from 90 to 90"),
        ({"text_offsets": np.arange(9)}, "text_offsets do not divide"),
    ],
)
def test_fields(path: Path, changes: dict[str, Any], message: str) -> None:
    rewrite(path, **changes)
    assert message in refusal(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("current", np.nan, "current holds NaN"),
        ("spikes", 2, "spikes holds 2"),
    ],
)
def test_values(path: Path, trace: Trace, name: str, value: float, message: str) -> None:
    array = np.copy(getattr(trace, name))
    array[0, 3] = value
    rewrite(path, **{name: array})
    assert message in refusal(path)


def test_padding_is_zero_and_text_is_one_character_a_position(path: Path, trace: Trace) -> None:
    membrane = trace.membrane.copy()
    membrane[1, -1] = 0.5
    rewrite(path, membrane=membrane)
    assert "membrane is not zero at and after a row's length" in refusal(path)
    length = trace.length.copy()
    length[1] += 1
    write_trace(path, trace)
    rewrite(path, length=length)
    assert f"row 1 has {trace.length[1]} characters of text" in refusal(path)
