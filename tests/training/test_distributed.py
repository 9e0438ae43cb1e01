"""Two real processes over gloo: what travels, what is averaged, how a failure ends all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_worker import observe, torchrun
from hypothesis import given
from hypothesis import strategies as st

from speak_neuro.errors import SpeakError
from speak_neuro.training.distributed import ALONE, Ranks, joined, place
from speak_neuro.training.launch import Launch

WORKER = Path(__file__).parents[1] / "helpers" / "distributed_worker.py"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw."""
    folder = tmp_path_factory.mktemp("seen")
    done = torchrun(str(WORKER), str(folder))
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


def test_rows_are_dealt_out_and_gathered_in_order(seen: list[dict[str, Any]]) -> None:
    assert [process["own"] for process in seen] == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    for process in seen:
        assert process["gather"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
        assert process["gather_bool"] == [[False, False], [False, True], [True, True], [True, True]]


def test_sums_and_flags(seen: list[dict[str, Any]]) -> None:
    for process in seen:
        assert process["sum"] == [2.0, 1.0]
        assert process["any"] == [False, True, True]


def test_gradients_are_averaged_and_none_stays_none(seen: list[dict[str, Any]]) -> None:
    for process in seen:
        assert process["averaged"] == [[1.5, 15.0], [2.0, 4.0], None, None]


def test_a_function_of_the_batch_mean_has_the_whole_batch_gradient(seen: list[dict[str, Any]]) -> None:
    """(mean(w x) - 2.5)^2 at w = 1, mean 4: 2.25, derivative 2 * 1.5 * 4. One process has a mean of 2, below 2.5."""
    for process in seen:
        assert process["mean"] == [2.25, 12.0]


def test_a_failure_ends_all_and_one_says_why(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["agreed"] == ["fine", "here 0", "peer 2", "here 0"]
    assert seen[1]["agreed"] == ["fine", "peer 2", "here 1", "peer 2"]


def test_processes_that_drift_apart_are_found(seen: list[dict[str, Any]]) -> None:
    """Even a zero of the other sign."""
    for process in seen:
        assert process["equal"][:2] == ["equal", "equal"]
        assert process["equal"][2].startswith("weights differ between the 2 processes")


def test_alone_everything_is_the_identity() -> None:
    with joined("cpu", Launch()) as (ranks, device):
        assert (ranks, device) == (ALONE, torch.device("cpu"))
    found = observe(ALONE)
    assert found["own"] == found["gather"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert found["sum"] == [1.0, 0.0]
    assert found["averaged"] == [[1.0, 10.0], [4.0, 8.0], None, None]
    assert found["mean"] == [2.25, 12.0]
    assert found["agreed"] == ["fine", "here 0", "fine", "here 0"]


@given(batch=st.integers(1, 64), world=st.integers(1, 9))
def test_a_batch_is_dealt_out_evenly_or_refused(batch: int, world: int) -> None:
    ranks = [Ranks(rank, world) for rank in range(world)]
    rows = torch.arange(batch)
    if batch % world:
        with pytest.raises(SpeakError, match=rf"--batch is {batch}, .* allowed: a multiple of {world}, as \d+"):
            ranks[0].check_batch(batch)
        return
    for process in ranks:
        process.check_batch(batch)
    parts = [process.own(rows) for process in ranks]
    assert {len(part) for part in parts} == {batch // world}
    assert torch.equal(torch.stack(parts, dim=1).flatten(), rows)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process of a machine has its own CUDA device, or the one that is named."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    second = Launch(3, 4, 1, 2, started=True)
    assert place("auto", second) == torch.device("cuda", 1)
    assert place("cuda", second) == torch.device("cuda", 1)
    assert place("cuda:0", second) == torch.device("cuda", 0)
    assert place("cpu", second) == torch.device("cpu")
    assert place("auto", Launch()) == torch.device("cuda")
    with pytest.raises(SpeakError, match="4 processes on this machine, but torch finds 2 CUDA device"):
        place("auto", Launch(1, 4, 1, 4, started=True))


def test_nobody_to_meet() -> None:
    """A process that cannot reach the others says so instead of training alone."""
    script = (
        "import datetime\nfrom speak_neuro.training import distributed\nfrom speak_neuro.errors import SpeakError\n"
        "distributed.TIMEOUT = datetime.timedelta(seconds=1)\n"
        "try:\n    with distributed.joined('cpu'): pass\nexcept SpeakError as error: print(error)\n"
    )
    place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **place}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("process 1 of 2 cannot meet the others; MASTER_ADDR and MASTER_PORT must lead to")
