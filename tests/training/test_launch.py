"""What the environment of torchrun, accelerate and mpirun says, and what half of it does."""

from __future__ import annotations

import argparse
import os

import pytest

from speak_neuro.errors import SpeakError
from speak_neuro.training.launch import (
    LAUNCHERS,
    Launch,
    PeerFailed,
    PeerLost,
    end_as_one,
    read_launch,
    speak_once,
)

MEETING = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def test_by_hand() -> None:
    assert read_launch({}) == Launch(0, 1, 0, 1, started=False)
    assert read_launch({"WORLD_SIZE": "1"}) == Launch()
    assert read_launch({"PMI_RANK": "0", "PMI_SIZE": "1"}) == Launch()


def test_torchrun_and_accelerate() -> None:
    given = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert read_launch({**given, **MEETING}) == Launch(5, 8, 1, 4, started=True)
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    assert read_launch({**alone, **MEETING}) == Launch(0, 1, 0, 1, started=True)


def test_mpirun() -> None:
    given = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"}
    local = {"OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    assert read_launch({**given, **local, **MEETING}) == Launch(2, 4, 0, 2, started=True)
    assert read_launch({"PMI_RANK": "1", "PMI_SIZE": "2", **MEETING}) == Launch(1, 2, 1, 2, started=True)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4 and RANK is not set; start with torchrun"),
        ({"RANK": "1", **MEETING}, "RANK is 1 and WORLD_SIZE is not set"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "WORLD_SIZE is 2 and MASTER_ADDR or MASTER_PORT is not set"),
        ({"RANK": "2", "WORLD_SIZE": "2", **MEETING}, "RANK is 2 of 2, LOCAL_RANK 2 of 2; allowed: ranks from 0"),
        ({"RANK": "one", "WORLD_SIZE": "2", **MEETING}, "RANK is 'one'; allowed: a whole number"),
        ({"ACCELERATE_USE_CPU": "True", **MEETING}, "accelerate was asked for several processes and started one"),
    ],
)
def test_half_a_launch_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SpeakError) as caught:
        read_launch(environment)
    assert str(caught.value).startswith(message)


def test_the_environment_of_now_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries replace os.environ by a copy."""
    monkeypatch.setattr(os, "environ", {"RANK": "1", "WORLD_SIZE": "2", **MEETING})
    assert read_launch() == Launch(1, 2, 1, 2, started=True)


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (name for names in LAUNCHERS for name in names):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", **MEETING}.items():
        monkeypatch.setenv(name, value)


def fail(failure: BaseException) -> int:
    def action(arguments: argparse.Namespace) -> int:
        raise failure

    return end_as_one(action)(argparse.Namespace())


@pytest.mark.usefixtures("second")
def test_the_second_process_ends_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    parser = speak_once(argparse.ArgumentParser())
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--no-such-flag"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == ""
    assert fail(PeerFailed("said elsewhere")) == 2
    assert fail(PeerLost("gone")) == 2
    assert fail(KeyboardInterrupt()) == 130
    with pytest.raises(SpeakError, match="its own"):
        fail(SpeakError("its own"))


def test_the_first_process_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    parser = speak_once(argparse.ArgumentParser())
    with pytest.raises(SystemExit):
        parser.parse_args(["--no-such-flag"])
    assert "--no-such-flag" in capsys.readouterr().err
    assert fail(PeerFailed("said elsewhere")) == 2
    with pytest.raises(PeerLost):
        fail(PeerLost("gone"))
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
