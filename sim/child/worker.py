"""The simulation's own interpreter: `python -m speak_neuro.sim.child.worker in.npz out.npz`. Started by `runner` alone.

Importing Lava switches the whole interpreter to forking, and a failed run can leave processes and shared memory. So
every job is a fresh interpreter in a session of its own that dies with its parent, and each of its children with it.
On the pipe it was given as stdout it writes JSON lines, {"event": "progress" | "done" | "error", ...}; everything that
libraries print goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.errors import SpeakError
from speak_neuro.sim.job import CONSTANTS, INTEGERS

Arrays = Mapping[str, npt.NDArray[Any]]
Simulate = Callable[[Arrays, float, Callable[[int], None]], dict[str, npt.NDArray[Any]]]
PROGRESS_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1


def simulate(job: Arrays, deadline: float, on_step: Callable[[int], None]) -> dict[str, npt.NDArray[Any]]:
    """Run a job in Lava, `lanes` sequences at a time.

    `length` (B,), `lanes` (), and of a float32 network
        `constants` (6,) by CONSTANTS, or (6, B), and either `current` and `gate_logit` (T, B), or
        `features` (T, B, D), `weight` (2, D) and `bias` (2,)
    of a fixed-point one
        `integers` (6,) or (6, B), the fields of IntegerNeuron, and either `current` and `gate_logit` (T, B), or
        `payload` (T, B, D) and of P parts `part_weight` (P, D), `part_port` (P,), `part_exponent` (P,)

    Returns `spikes` and `membrane` (T, B), and at the readout level `current` and `gate_logit` as Lava computed them;
    zeros at and after a sequence's length.
    """
    from speak_neuro.sim.child import guard

    inputs = next(job[name] for name in ("features", "payload", "current") if name in job)
    positions, sequences = inputs.shape[:2]
    result: dict[str, npt.NDArray[Any]] = {}
    steps_before = 0
    for start in range(0, sequences, int(job["lanes"])):
        group = slice(start, min(start + int(job["lanes"]), sequences))
        steps = int(job["length"][group].max())
        built = _build(job, steps, group)
        found = guard.run_part(built, deadline=deadline, before=steps_before, steps=steps, on_step=on_step)
        steps_before += steps
        real = np.arange(steps)[:, None] < job["length"][group]
        for name, values in found.items():
            whole = result.setdefault(name, np.zeros((positions, sequences), dtype=values.dtype))
            whole[:steps, group] = np.where(real, values, 0)
    return result


def _build(job: Arrays, steps: int, group: slice) -> Any:
    """The network of one group of sequences."""
    names = INTEGERS if "integers" in job else CONSTANTS
    values = job["integers" if "integers" in job else "constants"]
    constants = dict(zip(names, values[:, group] if values.ndim == 2 else values, strict=True))
    if "integers" not in job:
        from speak_neuro.sim.child import network

        if "features" in job:
            return network.readout_network(job["features"][:steps, group], job["weight"], job["bias"], constants)
        return network.neuron_network(job["current"][:steps, group], job["gate_logit"][:steps, group], constants)
    from speak_neuro.sim.child import fixed_network

    if "payload" in job:
        parts = list(zip(job["part_port"].tolist(), job["part_weight"], job["part_exponent"].tolist(), strict=True))
        return fixed_network.fixed_readout_network(job["payload"][:steps, group], parts, constants)
    return fixed_network.fixed_neuron_network(
        job["current"][:steps, group], job["gate_logit"][:steps, group], constants
    )


def main(argv: Sequence[str] | None = None, simulate: Simulate = simulate) -> int:
    """Read the job, run `simulate`, write the result; tell the parent by events. 0 done, 1 failed."""
    parser = argparse.ArgumentParser(prog="speak_neuro.sim.child.worker")
    parser.add_argument("job")
    parser.add_argument("result")
    parser.add_argument("--timeout", type=float, required=True, help="seconds from now")
    parser.add_argument("--folder", required=True, help="removed when the parent is gone and cannot remove it itself")
    parser.add_argument("--parent", type=int, required=True, help="process id of the parent")
    arguments = parser.parse_args(argv)
    deadline = time.monotonic() + arguments.timeout
    events = _claim_stdout()
    _die_with_parent(events)
    if os.getppid() != arguments.parent:  # it died before its death could be asked for as a signal
        shutil.rmtree(arguments.folder, ignore_errors=True)
        return 1

    def report(event: str, **fields: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(events, (json.dumps({"event": event, **fields}) + "\n").encode())

    last = 0.0

    def on_step(step: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            report("progress", step=step)

    try:
        with np.load(arguments.job, allow_pickle=False) as archive:
            job = {name: archive[name] for name in archive.files}
        result = simulate(job, deadline, on_step)
        np.savez(arguments.result, **result)
        report("done", versions=_versions())
    except BaseException as error:
        report("error", **_describe(error))
        return 1
    finally:
        if os.getppid() != arguments.parent:
            shutil.rmtree(arguments.folder, ignore_errors=True)
    return 0


def _describe(error: BaseException) -> dict[str, Any]:
    kind = "failure"
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] == "lava":
        kind = "missing"
    elif isinstance(error, SpeakError):
        kind = "input"
    return {
        "kind": kind,
        "message": " ".join(str(error).split()) or type(error).__name__,
        "details": getattr(error, "details", "") or "".join(traceback.format_exception(error)),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    with contextlib.suppress(metadata.PackageNotFoundError):
        versions["lava-nc"] = metadata.version("lava-nc")
    return versions


def _claim_stdout() -> int:
    """Keep stdout's pipe for events and send whatever else is printed to stderr."""
    events = os.dup(1)
    os.dup2(2, 1)
    return events


def _die_with_parent(events: int) -> None:
    """End with the parent (SIGTERM, to clean up), and every forked child with this process (SIGKILL).

    A killed parent runs no clean-up. Its death reaches here as a signal; the resource tracker, which is not forked
    but started anew, outlives all others for a moment and unlinks the shared memory.
    """

    def on_terminate(_number: int, _frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the second one must not cut the clean-up short
        raise SystemExit("terminated")

    def in_child() -> None:
        _request_death_signal(signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            os.close(events)

    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.register_at_fork(after_in_child=in_child)
    _request_death_signal(signal.SIGTERM)


def _prctl() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    return ctypes.CDLL(None, use_errno=True).prctl


_PRCTL = _prctl()


def _request_death_signal(number: int) -> None:
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
