"""The compressors' mark: what PPMd and xz make of a text, against an independent decoder and hand-made texts."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path

import pyppmd
import pytest
from scripts import load

from speak_neuro.corpus.splits import read_splits


def test_the_embedded_text(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    assert load("bench/ppm").main(["--json", str(file)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))["metrics"]
    test = read_splits(None).test
    assert found["test_characters"] == len(test)
    assert found["xz_9_alone"] == 8 * len(lzma.compress(test.encode(), preset=9)) / len(test)
    assert found["ppmd_primed"] < found["ppmd_alone"] < found["xz_9_alone"]


def test_what_is_counted_decodes() -> None:
    data = read_splits(None).test.encode()[:20_000]
    encoder = pyppmd.Ppmd7Encoder(5, 16 << 20)
    packed = encoder.encode(data) + encoder.flush()
    assert load("bench/ppm").ppmd_bytes(data, 5, 16) == len(packed)
    # In a process that can be ended: the package decodes in a thread of its own, which waits when it wants more bytes.
    decode = "import sys, pyppmd; d = pyppmd.Ppmd7Decoder(5, 16 << 20); p = sys.stdin.buffer.read(); "
    decode += f"sys.stdout.buffer.write(d.decode(p, {len(data)}))"
    done = subprocess.run([sys.executable, "-c", decode], input=packed, capture_output=True, timeout=120, check=True)
    assert done.stdout == data


def test_wrong_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("bench/ppm").main(["--order", "1"]) == 2
    assert "--order is 1; allowed: 2 to 64" in capsys.readouterr().err
