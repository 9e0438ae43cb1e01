"""Kill training at random moments, resume it, and compare every file with that of a run that nobody killed.

python experiments/reliability/kills.py --count 52 --json experiments/results/reliability/kills.json

    kill k    system k mod 4, signal k mod 3, after a share, drawn from (seed, k), of the processor time that a whole
              run takes until its results are written
    lost      weights, checkpoints, log or scores of the resumed run differ from the whole one's, times aside

A kill is one short run in a process of its own, with one thread, forked when torch is loaded, so that moments fall into
the run's work. The outcome is written after each kill, and kills that the file has are not made again: the command can
be stopped and given once more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from short_run import flags_of, write_text

from speak_neuro.common.command import run_command
from speak_neuro.common.json_files import read_measurement
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.training import command

SYSTEMS = ("speak", "dtp-gumbel", "dtp-unigram", "magnet")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
LIMIT_SECONDS = 300
TIMES = ("seconds", "characters_per_second", "training_seconds")


def start(place: Path, name: str, system: str, *more: str) -> BaseProcess:
    """A run that has been started in a process of its own."""
    flags = flags_of(place, name, "--tokenizer", system, *more)
    process = get_context("fork").Process(target=train, args=(flags,))
    process.start()
    return process


def train(flags: list[str]) -> NoReturn:
    """`gtok.py` with these flags, in the child."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    sys.exit(command.main(flags, prog="gtok.py"))


def finish(process: BaseProcess) -> None:
    """Wait for the end of a run."""
    process.join(LIMIT_SECONDS)
    if process.exitcode != 0:
        process.kill()
        raise SpeakError(f"a run ended with exit code {process.exitcode}; train it by hand to see why")


def whole(place: Path, system: str) -> float:
    """Train the run that nobody kills; the seconds of processor time that it took until its results were there."""
    process, used = start(place, system, system), 0.0
    while process.is_alive() and not (place / system / "results.json").exists():
        used = processor_seconds(process)
        time.sleep(0.005)
    finish(process)
    return used


def processor_seconds(process: BaseProcess) -> float:
    """What a running child has used; the end of one that has ended."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def content(folder: Path) -> dict[str, Any]:
    """What a run left, by file, without the times in it."""
    from speak_neuro.common.digests import digest_of_file
    from speak_neuro.systems.run_folder import MODEL
    from speak_neuro.training.checkpoints import load_state
    from speak_neuro.training.metrics_log import read_metrics

    tensors, metadata, _, _ = load_state(folder, any_good=False)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))["metrics"]
    kept = {name: value.numpy().tobytes() for name, value in sorted(tensors.items())}
    return {
        "model": digest_of_file(folder / MODEL),
        "state": (kept, metadata["step"]),
        "log": [{name: value for name, value in line.items() if name not in TIMES} for line in read_metrics(folder)],
        "scores": {name: value for name, value in results.items() if name not in TIMES},
    }


def killed(place: Path, system: str, number: int, after: float) -> dict[str, Any]:
    """One kill of a fresh run, its resume, and what the resumed run lost."""
    from speak_neuro.systems.run_folder import CONFIG

    folder = place / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    name = SIGNALS[number % len(SIGNALS)]
    process, limit = start(place, "killed", system), time.monotonic() + LIMIT_SECONDS
    while process.is_alive() and processor_seconds(process) < after and time.monotonic() < limit:
        time.sleep(0.005)
    if process.is_alive():
        os.kill(process.pid or 0, signal.Signals[name])
        process.join(LIMIT_SECONDS)
        if process.exitcode is None:
            process.kill()
            raise SpeakError(f"kill {number}: the run of {system} did not end after {name}")
    came = where(folder)
    begun = (folder / CONFIG).exists()
    finish(start(place, "killed", system, *(["--resume", "auto"] if begun else [])))
    wanted, resumed = content(place / system), content(folder)
    lost = [part for part, value in wanted.items() if resumed[part] != value]
    return {"kill": number, "system": system, "signal": name, "after": round(after, 2), "came": came, "lost": lost}


def where(folder: Path) -> str:
    """How far a killed run had come, by what lies in its folder."""
    from speak_neuro.systems.run_folder import CONFIG, METRICS, STATE
    from speak_neuro.training.metrics_log import read_metrics

    if not (folder / CONFIG).exists():
        return "before its folder"
    if (folder / "results.json").exists():
        return "after the end"
    steps = read_metrics(folder)[-1:] if (folder / METRICS).exists() else []
    if not steps:
        return "before its first step"
    saved = "" if (folder / STATE).exists() else ", before its first checkpoint"
    return f"step {steps[0]['step']}{saved}"


def before(path: Path | None, seed: int) -> list[dict[str, Any]]:
    """The kills that a results file has."""
    if path is None or not path.exists():
        return []
    metrics = read_measurement(path, "name a file of this command", "kills")
    if metrics.get("seed") != seed:
        raise SpeakError(f"{path}: has the kills of seed {metrics.get('seed')}; name another file for seed {seed}")
    return list(metrics["kills"])


def measured(kills: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The metrics of a results file."""
    count = Counter(f"{kill['system']} {kill['signal']}" for kill in kills)
    lost = [kill["kill"] for kill in kills if kill["lost"]]
    return {"seed": seed, "count": len(kills), "lost": lost, "by": dict(sorted(count.items())), "kills": kills}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="reliability/kills.py", description="Kill training at random moments.")
    parser.add_argument("--count", type=int, default=52, help="kills, with those the results file has (default: 52)")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), metavar="NAME", help="systems that are trained")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--most-seconds", type=float, default=1e9, help="begin no kill after so long (default: no end)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="outcomes, written after each kill and gone on from")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1: a bit was lost."""
    return run_command(build_parser(), run, argv)


def run(arguments: argparse.Namespace) -> int:
    """Make the kills that are missing."""
    import torch

    from speak_neuro.training import fit, run_data, trainer  # noqa: F401 - loaded once, before the forks

    torch.set_num_threads(1)
    kills, began = before(arguments.json, arguments.seed), time.monotonic()
    usual: dict[str, float] = {}
    with TemporaryDirectory(prefix="speak-kills-") as folder:
        place = Path(folder)
        write_text(place)
        for number in range(len(kills), arguments.count):
            if time.monotonic() - began > arguments.most_seconds:
                break
            system = arguments.systems[number % len(arguments.systems)]
            if system not in usual:
                usual[system] = whole(place, system)
            share = random.Random(f"{arguments.seed} {number}").uniform(0.02, 1.0)
            kills.append(killed(place, system, number, share * usual[system]))
            print(json.dumps(kills[-1]), flush=True)
            write_result(arguments, measured(kills, arguments.seed))
    lost = measured(kills, arguments.seed)["lost"]
    print(f"{len(kills)} kills, {len(lost)} that lost a bit")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
