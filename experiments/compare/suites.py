"""The comparison of all systems, as parallel runs of experiments/gtok.py that can be stopped and resumed.

    python experiments/compare/suites.py main --data texts/text8 --out runs/compare --jobs 2
    python experiments/compare/suites.py frontier ablations --data texts/text8 --out runs/compare --jobs 16 --device
    cuda python experiments/compare/suites.py languages --data texts/ui --out runs/compare
    python experiments/compare/collect.py runs/compare/main --json experiments/results/compare/compare_main.json

Suites, each a folder of run folders below --out, with preset `compare` but for the last:

    main        every system; SPEAK and MAGNET, without and with a start as dtp-unigram, with three seeds
    frontier    the systems at other rates
    ablations   the paper's Table 3 and more, around the neuron without leak; fewer steps
    languages   SPEAK, MAGNET, dtp-unigram and vanilla on --data's folders en, fi, he, vi
    cpu         preset `compare-cpu`: every system; SPEAK and MAGNET, which here begins as dtp-unigram, with three seeds
    branch      preset `compare-cpu`, all at 4 characters per token: a language model trained behind each system in turn
                (mixture.py), then each system alone from these common weights, with three seeds
    branch-languages    the same with SPEAK, dtp-unigram and fixed lengths on --data's folders fi, he, vi and zh

A finished run is left alone, one that was stopped goes on. Runs with the same data share one exemplar of each size.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from speak_neuro.common.command import at_least, run_command
from speak_neuro.errors import SpeakError

GTOK = Path(__file__).resolve().parents[1] / "gtok.py"
MIXTURE = GTOK.parent / "compare" / "mixture.py"
SUITES = ("main", "frontier", "ablations", "languages", "cpu", "branch", "branch-languages")
SEEDS = (1, 2, 3)
LANGUAGES = ("en", "fi", "he", "vi")
PARTS = ("train.txt", "valid.txt", "test.txt")

MAIN = {
    "vanilla": "--tokenizer vanilla",
    "fixed": "--tokenizer fixed",
    "whitespace": "--tokenizer whitespace",
    "dtp-entropy": "--tokenizer dtp-entropy",
    "dtp-unigram": "--tokenizer dtp-unigram",
    "dtp-gumbel": "--tokenizer dtp-gumbel",
    "hnet": "--tokenizer hnet",
    # The rate that the paper's Table 1 implies for MAGNET on text8.
    **{f"magnet-{seed}": f"--tokenizer magnet --prior 0.217 --seed {seed}" for seed in SEEDS},
    # The same with the start that SPEAK has: without it, at this length, the language model learns to do without tokens
    # (experiments/LOG.md, 2026-11-26).
    **{
        f"magnet-started-{seed}": f"--tokenizer magnet --prior 0.217 --seed {seed} --exemplar-steps 300"
        for seed in SEEDS
    },
    "dtp-gumbel-started": "--tokenizer dtp-gumbel --exemplar-steps 300",
    **{f"speak-{seed}": f"--seed {seed}" for seed in SEEDS},
}
FRONTIER = {
    "fixed-6": "--tokenizer fixed --fixed-length 6",
    "dtp-unigram-1000": "--tokenizer dtp-unigram --exemplar-vocabulary 1000",
    "magnet-0.15": "--tokenizer magnet --prior 0.15",
    "magnet-0.3": "--tokenizer magnet --prior 0.3",
    "speak-500": "--exemplar-vocabulary 500",
    "speak-1000": "--exemplar-vocabulary 1000",
}
# Around the paper's neuron, which has no leak.
ABLATIONS = {
    "gated": "",
    "hard": "--reset-mode hard",
    "soft": "--reset-mode soft",
    "none": "--reset-mode none",
    "hard-none": "--reset-mode hard/none",
    "theta-1": "--reset-scale 1.0",
    "theta-0.5": "--reset-scale 0.5",
    "literal": "--acceptance literal",
    "greedy": "--acceptance greedy",
    "never": "--acceptance never",
    "no-rest-term": "--no-rest-term",
    "no-proxy-steps": "--proxy-steps 0",
    "leak": "--decay 0.25",
    "linear": "--encoder linear",
    "hourglass": "--encoder hourglass",
    "entropy-mean": "--entropy mean",
}
CPU = {
    **{
        name: flags
        for seed in SEEDS
        for name, flags in (
            (f"magnet-started-{seed}", f"--tokenizer magnet --prior 0.217 --exemplar-steps 200 --seed {seed}"),
            (f"speak-{seed}", f"--seed {seed}"),
        )
    },
    "whitespace": "--tokenizer whitespace",
    "dtp-unigram": "--tokenizer dtp-unigram",
    "dtp-entropy": "--tokenizer dtp-entropy",
    "dtp-gumbel-started": "--tokenizer dtp-gumbel --exemplar-steps 200",
    "vanilla": "--tokenizer vanilla",
    "fixed": "--tokenizer fixed",
    "magnet": "--tokenizer magnet --prior 0.217",
    "speak-hourglass": "--encoder hourglass",
    "speak-entropy-mean": "--entropy mean",
}
LANGUAGE_SYSTEMS = {
    "vanilla": "--tokenizer vanilla",
    "dtp-unigram": "--tokenizer dtp-unigram",
    "magnet": "--tokenizer magnet --prior {prior}",
    "speak": "",
}
# 1 / SF of MAGNET in the paper's Table 1.
PRIORS = {"en": 0.213, "fi": 0.385, "he": 0.227, "vi": 0.233}

RUNNING: set[subprocess.Popen[bytes]] = set()
"""Each in a session of its own, so that an interrupt of this command is passed on once."""


# One share of the common training for each family; exemplars of 1,000 pieces have about the target's tokens themselves.
INFORMATION = "--drive information --decay 1 --reset-scale 1 --entropy-share 0.667"
FAMILIES = {
    "whitespace": "--tokenizer whitespace",
    "dtp-unigram": "--tokenizer dtp-unigram",
    "dtp-entropy": "--tokenizer dtp-entropy",
    "magnet-started": "--tokenizer magnet --exemplar-steps 300",
    "hnet": "--tokenizer hnet",
    "fixed": "--tokenizer fixed",
    "speak": INFORMATION,
}
BRANCHES = {
    **{name: (name, flags.partition(" --exemplar-steps")[0]) for name, flags in FAMILIES.items()},
    "speak-hard": ("speak", f"{INFORMATION} --reset-mode hard"),
    "speak-soft": ("speak", f"{INFORMATION} --reset-mode soft"),
    "speak-smooth": ("speak", f"{INFORMATION} --unpooling smooth"),
    # As few tokens as white space has.
    "speak-6": ("speak", f"{INFORMATION} --target-sf 5.9"),
    "dtp-unigram-6": ("dtp-unigram", "--tokenizer dtp-unigram --target-sf 5.9"),
}
BRANCH_FLAGS = "--target-sf 4 --exemplar-vocabulary 1000 --test-characters 150000 --tokenizer-learning-rate 0.002"
LANGUAGE_FLAGS = "--tokenizer-learning-rate 0.002"
LANGUAGE_BRANCHES = {
    # Characters per token; pieces of the exemplar, so that about as many are its own.
    "fi": "--target-sf 4 --exemplar-vocabulary 1000",
    "he": "--target-sf 4 --exemplar-vocabulary 2000",
    "vi": "--target-sf 4 --exemplar-vocabulary 1000",
    "zh": "--target-sf 2 --exemplar-vocabulary 5000 --fixed-length 2",
}
ENGLISH_NAMES = tuple(name for name in BRANCHES if name != "fixed")
LANGUAGE_NAMES = ("dtp-unigram", "fixed", "speak")
OWN_FLAGS = "--learning-rate 0.0024 --matrix-learning-rate 0.006 --tokenizer-learning-rate 0.0006 --warmup 30"
"""A branch begins where the common rates came to zero: at the full rates it would first unlearn what it was given."""
BRANCH_STEPS, LANGUAGE_STEPS = 250, 150
"""A quarter of the way: the common training is three times as long."""


@dataclass(frozen=True)
class Job:
    """One run."""

    folder: Path
    data: Path
    flags: tuple[str, ...]
    preset: str = "compare"
    after: Path | None = None
    """The mixture that has to be there first; its member of the run's system gives the weights."""
    common: str = ""
    """Settings of the mixture's members."""

    @property
    def vocabulary(self) -> str:
        """Pieces of its exemplar; empty where it has none."""
        system = self.flags[self.flags.index("--tokenizer") + 1] if "--tokenizer" in self.flags else "speak"
        if system not in ("speak", "dtp-unigram") and "--exemplar-steps" not in self.flags:
            return ""
        name = "--exemplar-vocabulary"
        return self.flags[self.flags.index(name) + 1] if name in self.flags else "5000"


def jobs_of(suite: str, data: Path, out: Path, steps: int | None) -> list[Job]:
    """The runs of a suite."""

    def job(name: str, flags: str, where: Path, default_steps: int, preset: str = "compare") -> Job:
        text = f"--steps {steps or default_steps} {flags}"
        if "--seed" not in flags:
            text += " --seed 1"
        return Job(out / suite / name, where, tuple(shlex.split(text)), preset)

    if suite == "branch":
        return [
            job
            for seed in SEEDS
            for job in branches(
                out / suite,
                data,
                out / "mixture",
                f"{BRANCH_FLAGS} --seed {seed}",
                steps or BRANCH_STEPS,
                ENGLISH_NAMES,
            )
        ]
    if suite == "branch-languages":
        return [
            job
            for seed in SEEDS
            for language, flags in LANGUAGE_BRANCHES.items()
            for job in branches(
                out / suite / language,
                data / language,
                out / "mixture-languages" / language,
                f"{flags} {LANGUAGE_FLAGS} --seed {seed}",
                steps or LANGUAGE_STEPS,
                LANGUAGE_NAMES,
            )
        ]
    if suite == "languages":
        found = []
        for language in LANGUAGES:
            if not (data / language / "train.txt").is_file():
                raise SpeakError(
                    f"{data}: holds no {language}/train.txt; make it with python experiments/corpora/make.py"
                )
            for name, flags in LANGUAGE_SYSTEMS.items():
                # Few steps: a megabyte is read about five times.
                text = flags.format(prior=PRIORS[language]) + " --warmup 50 --proxy-steps 50 --evaluate-every 50"
                found.append(job(f"{language}-{name}", text, data / language, 400))
        return found
    if suite == "cpu":
        return [job(name, flags, data, 2000, "compare-cpu") for name, flags in CPU.items()]
    if suite == "ablations":
        return [job(name, f"--decay 1 {flags}", data, 1500) for name, flags in ABLATIONS.items()]
    return [job(name, flags, data, 3000) for name, flags in {"main": MAIN, "frontier": FRONTIER}[suite].items()]


def branches(out: Path, data: Path, mixtures: Path, flags: str, steps: int, names: Sequence[str]) -> list[Job]:
    """The branches `names` of one mixture, in folders NAME-SEED."""
    seed = flags.rpartition(" ")[2]
    return [
        Job(
            out / f"{name}-{seed}",
            data,
            tuple(shlex.split(f"--steps {steps} {flags} {OWN_FLAGS} {own}")),
            "compare-cpu",
            mixtures / seed / member,
            f"--steps {3 * steps} {flags}",
        )
        for name, (member, own) in BRANCHES.items()
        if name in names
    ]


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
        job
        for suite in dict.fromkeys(arguments.suites)  # named twice it is one: two processes must not write one folder
        for job in jobs_of(suite, arguments.data, arguments.out, arguments.steps)
    ]
    for folder in sorted({job.data for job in every}):
        if missing := [name for name in PARTS if not (folder / name).is_file()]:
            raise SpeakError(
                f"{folder}: holds no {' and no '.join(missing)}; make the parts with python experiments/corpora/make.py"
            )
    left = [job for job in every if not (job.folder / "results.json").is_file()]
    begun = sum((job.folder / "config.json").is_file() for job in every)
    print(f"{len(every)} runs, {len(every) - len(left)} of them finished", flush=True)
    if begun and (arguments.steps is not None or arguments.flags):
        print(f"--steps and --flags are for new runs; {begun} have begun and keep their own settings", flush=True)
    shared = {
        (job.data, job.vocabulary): arguments.out / f"exemplar-{job.data.name}-{job.vocabulary}.json"
        for job in left
        if job.vocabulary
    }
    learn_exemplars(shared)
    began = time.monotonic()
    failed = 0
    for mixture in dict.fromkeys(job.after and job.after.parent for job in left):
        part = [job for job in left if (job.after and job.after.parent) == mixture]
        if mixture is not None:
            mix(mixture, part, shared, arguments)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            try:
                failed += sum(pool.map(lambda job: run(job, shared.get((job.data, job.vocabulary)), arguments), part))
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                end_running()
                raise KeyboardInterrupt("the runs are saved, the same command goes on") from None
    print(f"{len(left) - failed} runs finished, {failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def learn_exemplars(shared: dict[tuple[Path, str], Path]) -> None:
    """Write the exemplars that are not there yet."""
    from speak_neuro.supervision.exemplar import UnigramExemplar

    for (data, vocabulary), path in shared.items():
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            UnigramExemplar.train((data / "train.txt").read_text("utf-8"), int(vocabulary)).save(path)


def mix(folder: Path, part: list[Job], shared: dict[tuple[Path, str], Path], arguments: argparse.Namespace) -> None:
    """Train or resume the mixture that these jobs branch from, of the families that they are of."""
    if (folder / "speak" / "model.safetensors").is_file():
        return
    job, members = part[0], {job.after.name for job in part if job.after}
    flags = f"{job.common} {arguments.flags}"
    command = [sys.executable, str(MIXTURE), "--data", str(job.data), "--out", str(folder), "--quiet"]
    command += ["--preset", job.preset, "--device", arguments.device, "--flags", flags]
    command += [word for name, own in FAMILIES.items() if name in members for word in ("--member", f"{name}={own}")]
    command += [word for (data, _), path in shared.items() if data == job.data for word in ("--exemplar", str(path))]
    if logged(command, folder):
        raise SpeakError(f"{folder}: failed, {folder.with_suffix('.log')} says why; nothing can branch from it")


def logged(command: list[str], folder: Path) -> int:
    """Run a command with one thread, its output appended to the log beside `folder`; its exit code."""
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(shlex.join(command) + "\n")
        stream.flush()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        RUNNING.add(process)
        try:
            return process.wait()
        except KeyboardInterrupt:
            end_running()
            raise
        finally:
            RUNNING.discard(process)


def end_running() -> None:
    """Let the runs save themselves and end."""
    for process in list(RUNNING):
        process.terminate()


def run(job: Job, exemplar: Path | None, arguments: argparse.Namespace) -> bool:
    """Run or resume one job, its output in log.txt beside the run folder; true if it failed."""
    resume = (job.folder / "config.json").is_file()
    command = [sys.executable, str(GTOK), "--data", str(job.data), "--out", str(job.folder), "--quiet"]
    command += ["--device", arguments.device, *(["--resume"] if resume else ["--preset", job.preset, *job.flags])]
    command += [] if resume else shlex.split(arguments.flags)
    if exemplar is not None and not resume:
        command += ["--exemplar", str(exemplar)]
    if job.after is not None and not resume:
        command += ["--start-from", str(job.after)]
    began = time.monotonic()
    code = logged(command, job.folder)
    told = job.folder.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
    lines = [line for line in told.splitlines() if line]
    told = next((line for line in reversed(lines) if line.startswith("test ")), lines[-1]) if lines else ""
    print(f"{job.folder.parent.name}/{job.folder.name}: {told} ({time.monotonic() - began:.0f} s)", flush=True)
    return code != 0


if __name__ == "__main__":
    sys.exit(main())
