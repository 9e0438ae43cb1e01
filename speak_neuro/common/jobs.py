"""Commands side by side, each a process of its own with one thread and a log; an interrupt lets all save and end."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

ENDING_SECONDS = 60


class Job(NamedTuple):
    """A command, and the file that its output is appended to."""

    command: list[str]
    log: Path

    def last_line(self) -> str:
        """The end of the log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "no message")


def start(job: Job) -> Any:
    """The job's process, in a session of its own, so that an interrupt of this command is passed on once."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with job.log.open("ab") as log:
        log.write(f"{shlex.join(job.command)}\n".encode("utf-8", "backslashreplace"))
        log.flush()
        return subprocess.Popen(job.command, stdout=log, stderr=log, env=environment, start_new_session=True)


def run_jobs(jobs: Iterable[Job], at_once: int, ended: Callable[[Job, int, float], None]) -> None:
    """Run all, `at_once` at a time; `ended` hears of each with its exit code and seconds."""
    waiting, running = list(jobs), dict[Any, tuple[Job, float]]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running[start(job)] = job, time.monotonic()
            time.sleep(0.1)
            for process in [one for one in running if one.poll() is not None]:
                job, began = running.pop(process)
                ended(job, process.poll(), time.monotonic() - began)
    except KeyboardInterrupt:
        for process in running:
            process.terminate()  # not Ctrl-C, which a shell's background jobs ignore, and so do their children
        for process in running:
            try:
                process.wait(timeout=ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        raise KeyboardInterrupt("the runs are saved, the same command goes on") from None
