"""experiments/reliability/demos.py: two demos under other hash seeds are equal, and a difference is seen."""

import json
import shutil
from pathlib import Path

import pytest
from lava_fixtures import lava
from scripts import load

demos = load("reliability/demos")


def test_times_and_places_are_left_out() -> None:
    value = {"date": "x", "metrics": {"training_seconds": 1.0, "test_bpc": 2.0, "steps": [{"seconds": 3, "step": 1}]}}
    assert demos.plain(value) == {"metrics": {"test_bpc": 2.0, "steps": [{"step": 1}]}}


@lava
@pytest.mark.slow
def test_two_demos_are_equal_and_a_difference_is_seen(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "demos.json"
    flags = ["--work", str(work), "--steps", "30", "--json", str(out)]
    assert demos.main(flags) == 0
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    assert metrics["differ"] == []
    assert set(metrics["digests"]) > {
        "exemplar.json",
        "model.safetensors",
        "boundary.nir",
        "trace.npz",
        "metrics.jsonl",
    }
    assert metrics["mismatches"] == 0
    second = work / f"hash-seed-{demos.SEEDS[1]}" / "demo"
    shutil.copy(second / "state.safetensors", second / "model.safetensors")
    results = json.loads((second / "results.json").read_text(encoding="utf-8"))
    results["metrics"]["test_bpc"] += 1e-9
    (second / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert demos.main(flags) == 1  # nothing is made anew
    differ = json.loads(out.read_text(encoding="utf-8"))["metrics"]["differ"]
    assert differ == ["model.safetensors", "results.json"]
