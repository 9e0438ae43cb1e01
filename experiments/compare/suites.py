"""The comparison of all systems, as parallel runs of experiments/gtok.py that can be stopped and resumed.

    python experiments/compare/suites.py main --data texts/text8 --out runs/compare --jobs 2
    python experiments/compare/suites.py frontier ablations --data texts/text8 --out runs/compare --jobs 16
    python experiments/compare/suites.py languages --data texts/ui --out runs/compare --device cuda
    python experiments/compare/collect.py runs/compare/main --json experiments/results/compare/compare_main.json

Suites, each a folder of run folders below --out, with preset `compare` but for the last:

    main        every system; SPEAK and MAGNET, without and with a start as dtp-unigram, with three seeds
    frontier    the systems at other rates
    ablations   the paper's Table 3 and more, around the neuron without leak; fewer steps
    languages   SPEAK, MAGNET, dtp-unigram and vanilla on --data's folders en, fi, he, vi
    cpu         preset `compare-cpu`: every system; SPEAK and MAGNET, which here begins as dtp-unigram, with three seeds
    branch      preset `compare-cpu`, all at 4 characters per token: a language model trained behind each system in turn
                (mixture.py), then each system alone from these common weights, with three seeds
    branch-long         the same common weights, then five systems alone for twice as many steps, at higher rates
    branch-words        as branch, SPEAK and dtp-unigram at the 5.9 characters per token of white space
    branch-languages    the same with SPEAK, dtp-unigram and fixed lengths on --data's folders fi, he, vi and zh

A finished run is left alone, one that was stopped goes on. Runs with the same data share one exemplar of each size.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from suite_runs import FAMILIES, PARTS, SUITES, Run, runs_of

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.jobs import Job, run_jobs
from speak_neuro.errors import SpeakError

MIXTURE = Path(__file__).resolve().with_name("mixture.py")
GTOK = MIXTURE.parents[1] / "gtok.py"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="suites.py",
        description="Train every system that is compared.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(__doc__ or "").split("\n\n", 2)[2],
    )
    parser.add_argument("suites", nargs="+", choices=SUITES, metavar="SUITE")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.txt, valid.txt and test.txt")
    parser.add_argument("--out", type=Path, required=True, help="folder for the suites")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--steps", type=int, help="steps of every run (default: the suite's)")
    parser.add_argument("--flags", default="", help="further flags of gtok.py for every run, in one string")
    return run_command(parser, compare, argv)


def compare(arguments: argparse.Namespace) -> int:
    """Run what is not finished."""
    at_least(arguments, 1, "jobs")
    at_least(arguments, 1, "steps")
    if not arguments.data.is_dir():
        raise SpeakError(f"{arguments.data}: no folder; make one with python experiments/corpora/make.py")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise SpeakError(f"{arguments.out}: a file; --out is a folder for the suites")
    every = [
        run
        for suite in dict.fromkeys(arguments.suites)  # named twice it is one: two processes must not write one folder
        for run in runs_of(suite, arguments.data, arguments.out, arguments.steps)
    ]
    for folder in sorted({run.data for run in every}):
        if missing := [name for name in PARTS if not (folder / name).is_file()]:
            raise SpeakError(
                f"{folder}: holds no {' and no '.join(missing)}; make the parts with python experiments/corpora/make.py"
            )
    left = [run for run in every if not (run.folder / "results.json").is_file()]
    begun = sum((run.folder / "config.json").is_file() for run in every)
    print(f"{len(every)} runs, {len(every) - len(left)} of them finished", flush=True)
    if begun and (arguments.steps is not None or arguments.flags):
        print(f"--steps and --flags are for new runs; {begun} have begun and keep their own settings", flush=True)
    shared = {
        (run.data, run.vocabulary): arguments.out / f"exemplar-{run.data.name}-{run.vocabulary}.json"
        for run in left
        if run.vocabulary
    }
    learn_exemplars(shared)
    began = time.monotonic()
    failed: list[Job] = []

    def ended(job: Job, code: int, seconds: float) -> None:
        lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
        told = next((line for line in reversed(lines) if line.startswith("test ")), job.last_line())
        print(f"{job.log.parent.name}/{job.log.stem}: {told} ({seconds:.0f} s)", flush=True)
        failed.extend([job] if code else [])

    for mixture in dict.fromkeys(run.after and run.after.parent for run in left):
        part = [run for run in left if (run.after and run.after.parent) == mixture]
        if mixture is not None:
            mix(mixture, part, shared, arguments)
        jobs = [job_of(run, shared.get((run.data, run.vocabulary)), arguments) for run in part]
        run_jobs(jobs, arguments.jobs, ended)
    print(f"{len(left) - len(failed)} runs finished, {len(failed)} failed, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def learn_exemplars(shared: dict[tuple[Path, str], Path]) -> None:
    """Write the exemplars that are not there yet."""
    from speak_neuro.supervision.exemplar import UnigramExemplar

    for (data, vocabulary), path in shared.items():
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            UnigramExemplar.train((data / "train.txt").read_text("utf-8"), int(vocabulary)).save(path)


def mix(folder: Path, part: list[Run], shared: dict[tuple[Path, str], Path], arguments: argparse.Namespace) -> None:
    """Train or resume the mixture that these runs branch from, of the families that they are of."""
    if (folder / "speak" / "model.safetensors").is_file():
        return
    run, members = part[0], {run.after.name for run in part if run.after}
    flags = f"{run.common} {arguments.flags}"
    command = [sys.executable, str(MIXTURE), "--data", str(run.data), "--out", str(folder), "--quiet"]
    command += ["--preset", run.preset, "--device", arguments.device, "--flags", flags]
    command += [word for name, own in FAMILIES.items() if name in members for word in ("--member", f"{name}={own}")]
    command += [word for (data, _), path in shared.items() if data == run.data for word in ("--exemplar", str(path))]

    def ended(job: Job, code: int, seconds: float) -> None:
        if code:
            raise SpeakError(f"{folder}: failed, {job.log} says why; nothing can branch from it")

    run_jobs([Job(command, folder.with_name(f"{folder.name}.log"))], 1, ended)


def job_of(run: Run, exemplar: Path | None, arguments: argparse.Namespace) -> Job:
    """The command that runs or resumes one run, its log beside the run folder."""
    command = [sys.executable, str(GTOK), "--data", str(run.data), "--out", str(run.folder), "--quiet"]
    command += ["--device", arguments.device]
    if (run.folder / "config.json").is_file():
        command.append("--resume")
    else:
        command += ["--preset", run.preset, *run.flags, *shlex.split(arguments.flags)]
        command += ["--exemplar", str(exemplar)] if exemplar else []
        command += ["--start-from", str(run.after)] if run.after else []
    return Job(command, run.folder.with_name(f"{run.folder.name}.log"))


if __name__ == "__main__":
    sys.exit(main())
