"""Which of several processes this one is: what torchrun, accelerate or mpirun left in the environment. No torch here.

Started by hand a process is alone, rank 0 of 1. A launcher that names a rank and no meeting place, or the reverse, is
an error: going on alone would train as many separate runs as there are processes, all in one folder.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from speak_neuro.errors import SpeakError

# Rank among all, number of all, rank on this machine, number on this machine.
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)
MEETING = ("MASTER_ADDR", "MASTER_PORT")
USUAL = "start with torchrun --nproc-per-node N experiments/gtok.py ..."


class PeerFailed(SpeakError):
    """Another process of this run failed and says why itself: nothing to add."""


class PeerLost(SpeakError):
    """Another process of this run is gone without a word that reached us."""


@dataclass(frozen=True)
class Launch:
    """This process among those that train one run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Rank among the processes of this machine."""
    local_world: int = 1
    started: bool = False
    """Whether a launcher started it; with one process that is possible too."""


def read_launch(environment: Mapping[str, str] | None = None) -> Launch:
    """What the launcher says, checked."""
    # Looked up at each call: datasets' map with several processes puts another object in os.environ's place.
    environment = os.environ if environment is None else environment
    met = all(environment.get(name) for name in MEETING)
    for names in LAUNCHERS:
        given = [name for name in names[:2] if name in environment]
        if not given:
            continue
        if len(given) == 1:
            # A container may set WORLD_SIZE=1 for its own ends.
            if environment[given[0]] in ("0", "1") and not met:
                continue
            missing = next(name for name in names[:2] if name not in environment)
            raise SpeakError(f"{given[0]} is {environment[given[0]]} and {missing} is not set; {USUAL}")
        rank, world = (_integer(environment, name) for name in names[:2])
        local_rank = _integer(environment, names[2], rank)
        local_world = _integer(environment, names[3], world)
        if not (0 <= rank < world and 0 <= local_rank < local_world):
            raise SpeakError(
                f"{names[0]} is {rank} of {world}, {names[2]} {local_rank} of {local_world}; allowed: ranks from 0 to "
                f"below the number of processes; {USUAL}"
            )
        if not met and world > 1:
            raise SpeakError(f"{names[1]} is {world} and {' or '.join(MEETING)} is not set; {USUAL}")
        return Launch(rank, world, local_rank, local_world, started=met)
    if met and "ACCELERATE_USE_CPU" in environment:
        raise SpeakError(
            "accelerate was asked for several processes and started one: on the CPU it needs --mpirun_hostfile, or "
            f"take --multi_gpu instead of --cpu and give --device cpu to the script; or {USUAL}"
        )
    return Launch()


def _integer(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    value = environment.get(name)
    if value is None and default is not None:
        return default
    try:
        return int(str(value))
    except ValueError:
        raise SpeakError(f"{name} is {value!r}; allowed: a whole number; {USUAL}") from None


def command_of(arguments: argparse.Namespace) -> str:
    """The command as it was given, without the launcher."""
    script = arguments.command_line.startswith("gtok.py")
    return f"python experiments/{arguments.command_line}" if script else str(arguments.command_line)


def is_first() -> bool:
    """Whether this process speaks for all; so does one whose launcher is not understood."""
    try:
        return read_launch().rank == 0
    except SpeakError:
        return True


def speak_once(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Let the first process alone print help, usage and errors of the command line, which are the same in all."""
    if not is_first():
        parser._print_message = lambda message, file=None: None  # type: ignore[method-assign]
    return parser


def end_as_one(action: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """`action` for one of several processes: what ends all of them is said by one of them."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            return action(arguments)
        except PeerFailed as failure:
            return failure.exit_code
        except PeerLost as failure:
            if is_first():
                raise
            return failure.exit_code
        except KeyboardInterrupt:
            if is_first():
                raise
            return 130

    return run
