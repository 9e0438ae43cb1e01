"""speak-doctor: versions as installed, what is missing with its remedy, and no heavy import for nothing."""

from __future__ import annotations

import importlib.util
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from speak_neuro import doctor


def test_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--json", str(tmp_path / "found.json")]) == 0
    out = capsys.readouterr().out
    assert f"  torch        {metadata.version('torch')}" in out
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["metrics"]
    assert found["versions"]["numpy"] == metadata.version("numpy")
    assert set(found["extras"]) == {"lava", "hf", "viz", "stats", "scale"}


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real_version, real_spec = metadata.version, importlib.util.find_spec

    def version(name: str) -> str:
        if name == "snntorch":
            raise metadata.PackageNotFoundError(name)
        return real_version(name)

    def find_spec(name: str, package: Any = None) -> Any:
        return None if name in ("scipy", "ray") else real_spec(name, package)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert doctor.main([]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert "  snntorch     missing" in lines
    assert "snntorch is missing: pip install snntorch" in lines
    assert "for tests between systems: pip install 'speak-neuro[stats]'" in lines
    assert any(line.startswith("extra scale") and "without ray" in line for line in lines)


def test_a_build_for_cuda_without_a_card() -> None:
    found: dict[str, Any] = {
        "versions": {"torch": "2.9"},
        "extras": {extra.name: [] for extra in doctor.EXTRAS},
        "devices": {"python": "3.12", "processor": "P", "cuda": [], "torch_built_for_cuda": "12.8"},
        "commands": {"speak-sim": None},
    }
    lines = doctor.told(found)
    assert any("torch is built for CUDA 12.8 and finds no card" in line for line in lines)
    assert any(line.startswith("speak-sim is not on the path") for line in lines)
    found["devices"]["cuda"] = ["A card"]
    assert not any("finds no card" in line for line in doctor.told(found))
