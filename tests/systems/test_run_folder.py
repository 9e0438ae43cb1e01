"""Run folders: every way in which one can be broken is one clear line, and a failed save loses nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from speak_neuro.common.digests import digest_of
from speak_neuro.common.tensors import read_tensors, write_tensors
from speak_neuro.errors import SpeakError
from speak_neuro.systems.run_folder import CONFIG, METRICS, MODEL, STATE, load_system, read_run, save_model
from speak_neuro.training.metrics_log import MetricsLog, read_metrics


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run, to be broken."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def edit_config(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        change(values)
        (folder / CONFIG).write_text(json.dumps(values), encoding="utf-8")

    return apply


def edit_model(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors, metadata = read_tensors(folder / MODEL)
        change(tensors)
        write_tensors(folder / MODEL, tensors, metadata)

    return apply


def truncate(name: str, keep: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep]) and None


NAME = "tokenizer.current_readout.weight"


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (edit_config(lambda v: v.update(schema=99)), r"schema is 99, this version reads 1 to 2; use the speak_neuro"),
        (edit_config(lambda v: v.pop("schema")), r"schema is None"),
        (edit_config(lambda v: v["config"]["training"].pop("steps")), r"config.training: field 'steps' is missing"),
        (edit_config(lambda v: v["config"]["neuron"].update(decay=2.0)), r"decay is 2.0; allowed"),
        (edit_config(lambda v: v.update(alphabet={})), r"alphabet"),
        (edit_config(lambda v: v.pop("alphabet")), r"alphabet"),
        (truncate(CONFIG, 50), r"not valid JSON"),
        (lambda folder: (folder / CONFIG).unlink(), r"holds no config.json, so it is not a run folder"),
        (lambda folder: (folder / MODEL).unlink(), r"model.safetensors: no such file; the run has saved no checkpoint"),
        (truncate(MODEL, 1000), r"model.safetensors: not a whole safetensors file"),
        (truncate(MODEL, 0), r"model.safetensors: not a whole safetensors file"),
        (lambda folder: (folder / MODEL).write_bytes(b"PK\x03\x04" + bytes(100)), r"not a whole safetensors file"),
        (edit_model(lambda t: t.pop(NAME)), rf"tensor {NAME} is missing"),
        (edit_model(lambda t: t.update(more=torch.zeros(1))), r"tensor more is unknown"),
        (edit_model(lambda t: t.update({NAME: torch.zeros(1, 3)})), rf"tensor {NAME} has shape \(1, 3\)"),
        (edit_model(lambda t: t[NAME].fill_(float("nan"))), rf"tensor {NAME} holds 16 values that are not finite"),
    ],
)
def test_a_broken_run_folder_is_one_clear_line(run: Path, breakage: Callable[[Path], None], message: str) -> None:
    breakage(run)
    with pytest.raises(SpeakError, match=message) as caught:
        load_system(read_run(run))
    assert "\n" not in str(caught.value)
    assert str(run) in str(caught.value)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(SpeakError, match="no such run folder; train one with"):
        read_run(tmp_path / "none")


def test_a_full_disk_leaves_the_previous_checkpoint(run: Path) -> None:
    """A real write that fails half-way: the child may not write files larger than a fraction of the checkpoint."""
    before = {name: (run / name).read_bytes() for name in (MODEL, STATE)}
    code = f"""
import resource, signal, sys
from pathlib import Path
from speak_neuro.common.digests import digest_of
from speak_neuro.common.tensors import read_tensors, write_tensors
from speak_neuro.systems.run_folder import STATE
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
tensors, metadata = read_tensors(Path({str(run)!r}) / STATE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_tensors(Path({str(run)!r}) / STATE, tensors, metadata)
except OSError as error:
    print("failed:", error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("failed:")
    assert {name: (run / name).read_bytes() for name in (MODEL, STATE)} == before
    assert not [p.name for p in run.iterdir() if p.suffix == ".tmp"]


def test_saving_twice_gives_the_same_bytes(run: Path) -> None:
    system = load_system(read_run(run))
    before = (run / MODEL).read_bytes()
    save_model(run, system)
    assert (run / MODEL).read_bytes() == before


def test_loading_restores_the_system(run: Path) -> None:
    tensors, _ = read_tensors(run / MODEL)
    system = load_system(read_run(run))
    assert not system.training
    for name, value in system.state_dict().items():
        assert torch.equal(value, tensors[name])


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for step in range(1, 6):
        log.append({"step": step, "bpc": 1.0})
    with (tmp_path / METRICS).open("a", encoding="utf-8") as stream:
        stream.write('{"step": 6, "bp')  # killed while writing
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    MetricsLog(tmp_path, 3)
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2, 3]
    whole = (tmp_path / METRICS).read_bytes()
    MetricsLog(tmp_path, 3)
    assert (tmp_path / METRICS).read_bytes() == whole


@pytest.mark.parametrize("line", ["{", '{"step": 2, "bp', "[2]", "\x85"])
def test_a_damaged_log_is_refused(tmp_path: Path, line: str) -> None:
    """Only the last line can be cut short: another one that is none means that records are lost."""
    (tmp_path / METRICS).write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n', encoding="utf-8")
    with pytest.raises(SpeakError, match=r"metrics.jsonl: line 2(: not valid JSON| holds list)"):
        read_metrics(tmp_path)
    with pytest.raises(SpeakError, match=r"metrics.jsonl: line 2"):
        MetricsLog(tmp_path, 3)


def test_a_changed_missing_or_moved_line_is_refused(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for step in range(1, 6):
        log.append({"step": step, "bpc": 1.0 + step / 8})
    path = tmp_path / METRICS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len({json.loads(line)["check"] for line in lines}) == 5
    path.write_text("".join(lines[:3]), encoding="utf-8")  # lines at the end may be missing: a kill leaves it so
    assert [r["bpc"] for r in read_metrics(tmp_path)] == [1.125, 1.25, 1.375]
    bare = [line.replace(', "check": "' + json.loads(line)["check"] + '"', "") for line in lines]
    path.write_text("".join(bare), encoding="utf-8")  # of a run from before there were checks
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    damaged = {
        "changed": [lines[0], lines[1].replace("1.25", "1.5"), *lines[2:]],
        "left out": [*lines[:1], *lines[2:]],
        "moved": [lines[1], lines[0], *lines[2:]],
        "without its check": [*lines[:4], bare[4]],
        "first without its check": [bare[0], *lines[1:]],
        "renamed": [*lines[:4], lines[4].replace("check", "chack")],
    }
    for name, changed in damaged.items():
        path.write_text("".join(changed), encoding="utf-8")
        with pytest.raises(SpeakError, match=r"metrics.jsonl: line \d: check is .* a line was damaged, changed"):
            read_metrics(tmp_path)
        assert name


def test_the_run_folder_says_where_it_comes_from(tiny_run: Path) -> None:
    record = read_run(tiny_run).record
    assert {"data", "versions", "commit", "device", "command"} <= set(record)
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert (tiny_run / "curves.png").read_bytes()[:4] == b"\x89PNG"
    results = json.loads((tiny_run / "results.json").read_text(encoding="utf-8"))
    assert set(results) == {"command", "commit", "device", "versions", "date", "metrics"}


def test_a_folder_from_before_a_setting_is_read(run: Path) -> None:
    """A version that did not have `unpooling` wrote neither it nor an identity with it; nor did it know its value."""
    values = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    del values["config"]["tokenizer"]["unpooling"]
    values = {key: value for key, value in values.items() if key != "sha256"}
    (run / CONFIG).write_text(json.dumps({**values, "sha256": digest_of(values)}), encoding="utf-8")
    kept = {part: values["config"][part] for part in ("neuron", "tokenizer", "model")}
    more = {"seed": values["config"]["training"]["seed"], "alphabet": values["alphabet"], "data": values["data"]}
    tensors, metadata = read_tensors(run / MODEL)
    write_tensors(run / MODEL, tensors, {**metadata, "run": digest_of({**kept, **more})})
    assert load_system(read_run(run)).config.tokenizer.unpooling == "read"
    other = digest_of({**kept, **more, "seed": more["seed"] + 1})
    write_tensors(run / MODEL, tensors, {**metadata, "run": other})
    with pytest.raises(SpeakError, match="belongs to another run"):
        load_system(read_run(run))
