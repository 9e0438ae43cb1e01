"""speak-train: train SPEAK, or a tokenizer it is compared with, together with a character language model.

speak-train                                     preset smoke on the embedded text
speak-train --data my.txt --out runs/mine       any UTF-8 file, or folder of .txt, in any language
speak-train --data texts/                       a folder with train.txt, valid.txt and test.txt as they are
speak-train --out runs/mine --resume            go on where the run stopped, on its own text
speak-train --tokenizer dtp-gumbel              another system, on the same model, data and schedule

`python experiments/gtok.py` in a checkout is the same command; torchrun starts it by several processes
(docs/scaling.md). `speak_neuro.train` is the same from Python.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speak_neuro.common.command import run_command
from speak_neuro.common.files import check_writable, write_json
from speak_neuro.common.provenance import commit, package_versions, result_record
from speak_neuro.common.settings import add_flags, override, to_dict
from speak_neuro.config import RunConfig
from speak_neuro.errors import MissingExtra, SpeakError
from speak_neuro.training.checks import add_run_flags, check_folder, check_same_system, check_settings, unread
from speak_neuro.training.launch import end_as_one, speak_once
from speak_neuro.training.plots import plot_metrics
from speak_neuro.training.presets import PRESETS, faithful, with_adam
from speak_neuro.training.run_data import Data, add_data_flags, read_data
from speak_neuro.training.run_lock import empty, is_leftover, locked

if TYPE_CHECKING:  # the command's --help does not wait for torch
    import torch

    from speak_neuro.systems.run_folder import Run
    from speak_neuro.systems.system import System
    from speak_neuro.training.distributed import Ranks
    from speak_neuro.training.evaluation import Evaluation
    from speak_neuro.training.trainer import Trainer


LOGS = ("tensorboard", "wandb")
Parser = argparse.ArgumentParser
MAIN_FLAGS = (
    "help help_all preset data dataset out resume overwrite device json quiet log "
    "tokenizer.kind tokenizer.encoder training.steps training.batch training.seed"
).split()
"""Destinations of the flags that --help shows; --help-all shows all."""


def build_parser(prog: str = "speak-train", everything: bool = True) -> argparse.ArgumentParser:
    """The command line; its help shows every flag, or those that matter first."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=None if everything else "%(prog)s [--data TEXT] [--out RUN] [flags]",
        description="Train a tokenizer, SPEAK's or another's, together with an Hourglass language model.",
        epilog="Flags of neuron, tokenizer, model and training override the preset. Ctrl-C ends the step, saves, and "
        "--resume goes on from there.",
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument("--help-all", action=HelpAll, nargs=0, help="show every flag and exit")
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), help="settings to start from (default: smoke); a resumed run has its own"
    )
    parser.add_argument("--faithful", action="store_true", help="the letter of the paper; flags still override it")
    add_data_flags(parser)
    parser.add_argument("--out", type=Path, help="run folder (default: runs/PRESET)")
    parser.add_argument(
        "--start-from", type=Path, metavar="FOLDER", help="weights of another run of the same system and model"
    )
    add_run_flags(parser)
    parser.add_argument("--log", choices=LOGS, help="also send the numbers of metrics.jsonl to this tracker")
    add_flags(parser, RunConfig)
    if not everything:
        for action in parser._actions:
            if action.dest not in MAIN_FLAGS:
                action.help = argparse.SUPPRESS
        for group in parser._action_groups:
            group.description = None
    return parser


class HelpAll(argparse.Action):
    """`--help-all`: the help of the whole parser."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        build_parser(parser.prog).print_help()
        parser.exit()


def main(argv: Sequence[str] | None = None, prog: str = "speak-train") -> int:
    """Entry point."""
    return run_command(speak_once(build_parser(prog, everything=False)), end_as_one(train), argv)


def train(arguments: argparse.Namespace) -> int:
    """Train, evaluate on the test text, and leave a run folder; with the other processes that a launcher started."""
    from speak_neuro.training.distributed import joined

    with joined(arguments.device) as (ranks, device):
        return train_run(arguments, arguments.out or Path("runs") / (arguments.preset or "smoke"), ranks, device)


def check_request(arguments: argparse.Namespace, folder: Path) -> None:
    """Refuse what cannot be done, before anything is read."""
    if arguments.stop_after is not None and arguments.stop_after < 1:
        raise SpeakError(f"--stop-after is {arguments.stop_after}; allowed: at least 1")
    check_folder(folder, bool(arguments.resume), arguments.overwrite)
    if arguments.json:
        check_writable(arguments.json)


def settings(arguments: argparse.Namespace, folder: Path) -> tuple[Run | None, RunConfig]:
    """The run to resume, if any, and the configuration."""
    if not arguments.resume:
        preset = arguments.preset or "smoke"
        config = override(PRESETS[preset], arguments)
        if arguments.faithful:
            config = override(faithful(config, preset), arguments)
        elif config.training.optimiser == "adam":
            config = override(with_adam(config, preset), arguments)
        check_settings(config)
        return None, config
    from speak_neuro.systems.run_folder import read_run

    run = read_run(folder)
    config = override(run.config, arguments)
    check_same_system(folder, run.config, config)
    check_settings(config)
    return run, config


def prepare(
    arguments: argparse.Namespace, folder: Path, run: Run | None, config: RunConfig, ranks: Ranks, device: torch.device
) -> Data:
    """Read the text and make the run folder; the first process does, the others find what it learned there."""
    import torch

    from speak_neuro.common.device import describe_device
    from speak_neuro.systems.run_folder import EXEMPLAR, read_run, write_config

    data = None
    with ranks.agreed():
        if ranks.first:
            data = read_data(arguments, config, folder, run)
            # Up to here nothing was written or removed: all that can be wrong with the input is known by now.
            if run is None:
                empty(folder)
                record = {
                    "data": data.record,
                    "command": command_of(arguments),
                    "versions": package_versions(),
                    "commit": commit(),
                    "device": describe_device(device),
                    "processes": ranks.world,
                    "threads": torch.get_num_threads(),
                }
                if arguments.start_from is not None:
                    record["started_from"] = arguments.start_from.parent.name
                if data.exemplar is not None:
                    record["exemplar_sha256"] = data.exemplar.digest()
                write_config(folder, config, data.alphabet, record)
            if data.exemplar is not None and not (folder / EXEMPLAR).exists():  # nor when a run was killed before it
                data.exemplar.save(folder / EXEMPLAR)
    with ranks.agreed():
        if data is None:
            quiet = argparse.Namespace(**{**vars(arguments), "quiet": True})
            data = read_data(quiet, config, folder, read_run(folder))
    return data


def train_run(arguments: argparse.Namespace, folder: Path, ranks: Ranks, device: torch.device) -> int:
    """`train`, as one of the processes `ranks`. The first reads and writes the folder and speaks."""
    with contextlib.ExitStack() as held:
        with ranks.agreed():
            if ranks.first:
                check_request(arguments, folder)
                held.enter_context(locked(folder))
                check_request(arguments, folder)  # once more, as nobody else can change it now
        return train_locked(arguments, folder, ranks, device)


def train_locked(arguments: argparse.Namespace, folder: Path, ranks: Ranks, device: torch.device) -> int:
    """`train_run` with the folder's lock."""
    from speak_neuro.common.device import choose_precision
    from speak_neuro.training.fit import fit
    from speak_neuro.training.words import Progress, logger_to

    with ranks.agreed():
        run, config = settings(arguments, folder)
        precision = choose_precision(config.training.precision, device)
        config = replace(config, training=replace(config.training, precision=precision))  # config.json tells which
        ranks.check_batch(config.training.batch)
    data = prepare(arguments, folder, run, config, ranks, device)
    if ranks.first:
        if run is not None and (arguments.preset or arguments.faithful):
            print("note: a resumed run keeps its own settings; --preset and --faithful change none", file=sys.stderr)
        for note in unread(arguments, config, data.alphabet):
            print(f"note: {note}", file=sys.stderr)
    trainer = begin(arguments, folder, run, config, data, ranks, device)
    if run is not None and ranks.first:
        tidy(folder, run, config, data)
    ranks.check_equal(list(trainer.system.state_dict().values()), "the weights to start from")
    if ranks.first and (told := undecided(config, trainer.sampler.steps_per_epoch)):
        print(told, file=sys.stderr)

    steps = config.training.steps
    progress = Progress(steps, trainer.step, arguments.quiet or not ranks.first, sys.stderr)
    tracked = logger_to(arguments.log, folder, to_dict(config)) if arguments.log and ranks.first else None

    def report(record: dict[str, Any]) -> None:
        if tracked is not None:
            tracked(record)
        if "bpc" in record:
            progress.step(record)
        else:
            values = {name.removeprefix("valid_"): value for name, value in record.items()}
            progress.say(f"step {record['step']}: validation {in_a_line(trainer.system, data, values)}")

    with contextlib.closing(progress):
        fit(folder, trainer, data.valid, data.valid_exemplar, report if ranks.first else None, arguments.stop_after)
    if trainer.step == steps:
        finish(arguments, folder, trainer, data, device)
    elif ranks.first:
        print(f"stopped at step {trainer.step} of {steps}; go on with --resume --out {folder}")
    return 0


def begin(
    arguments: argparse.Namespace,
    folder: Path,
    run: Run | None,
    config: RunConfig,
    data: Data,
    ranks: Ranks,
    device: torch.device,
) -> Trainer:
    """The run at step 0, or where its last checkpoint left it."""
    import torch

    from speak_neuro.systems.run_folder import start_from
    from speak_neuro.systems.system import System
    from speak_neuro.training.checkpoints import has_begun
    from speak_neuro.training.fit import resume
    from speak_neuro.training.trainer import Trainer

    torch.manual_seed(config.training.seed)
    system = System(config, len(data.alphabet), data.alphabet)
    if arguments.start_from is not None and run is None:
        start_from(system, arguments.start_from, data.alphabet)
    system = system.to(device)
    for turn in (True, False):  # the first process's proxy spikes have to be there before the others copy them
        with ranks.agreed():
            if ranks.first == turn:
                trainer = Trainer.create(system, config.training, data.train, data.proxy(turn), ranks)
                if run is not None and has_begun(folder):
                    for told in resume(folder, trainer, any_good=arguments.resume == "auto"):
                        print(f"note: {told}", file=sys.stderr)
                if trainer.step > config.training.steps:
                    raise SpeakError(
                        f"{folder}: has done {trainer.step} steps, more than --steps {config.training.steps}; "
                        "give more to go on"
                    )
    return trainer


def tidy(folder: Path, run: Run, config: RunConfig, data: Data) -> None:
    """What a resumed run's folder needs: its settings as they are now, and nothing that a killed run left behind."""
    import torch

    from speak_neuro.systems.run_folder import write_config

    if config != run.config:
        write_config(folder, config, data.alphabet, run.record, run.schema)
    for leftover in filter(is_leftover, folder.iterdir()):
        leftover.unlink()
    threads = run.record.get("threads", torch.get_num_threads())
    if threads != torch.get_num_threads():
        print(
            f"note: the run began with {threads} threads and goes on with {torch.get_num_threads()}: sums are "
            "added in another order, so its last bits will differ from those of a whole run (OMP_NUM_THREADS)",
            file=sys.stderr,
        )


def finish(arguments: argparse.Namespace, folder: Path, trainer: Trainer, data: Data, device: torch.device) -> None:
    """Score the finished run on the test text, write results.json and the curves, and say it."""
    from speak_neuro.common.device import describe_device
    from speak_neuro.training.evaluation import evaluate

    system, config, ranks = trainer.system, trainer.system.config, trainer.ranks
    found = evaluate(system, data.test, config.training.window, data.test_exemplar, ranks=ranks)
    metrics: dict[str, Any] = {
        **{f"test_{name}": value for name, value in asdict(found).items()},
        "parameters_language_model": count(system.language_model),
        "parameters_tokenizer": count(system.boundary_module),
        "training_seconds": round(trainer.seconds, 3),
        "training_characters": trainer.step * config.training.batch * config.training.window,
        "processes": ranks.world,
        "data": data.record,
        "config": to_dict(config),
    }
    if not config.is_speak and system.segmenter.samples:  # the other way to evaluate them, as DTP does, beside ours
        segmenter: Any = system.segmenter
        segmenter.sampled = not segmenter.sampled
        other = evaluate(system, data.test, config.training.window, ranks=ranks)
        name = "sampled" if segmenter.sampled else "likeliest"
        metrics[f"test_{name}_boundaries"] = {"bpc": other.bpc, "shortening_factor": other.shortening_factor}
    if not ranks.first:
        return
    record = result_record(command_of(arguments), metrics, describe_device(device))
    write_json(folder / "results.json", record)
    if arguments.json:
        write_json(arguments.json, record)
    draw(folder)
    unknown = f", {found.unknown_characters:,} characters unknown to the alphabet" if found.unknown_characters else ""
    if system.is_speak:
        show(system, config, data, found)
    told = in_a_line(system, data, asdict(found))
    print(f"test {told} ({found.characters:,} characters, {found.tokens:,} tokens{unknown})\nrun folder {folder}")


def in_a_line(system: System, data: Data, values: dict[str, Any]) -> str:
    """An evaluation's numbers, those that the system has."""
    from speak_neuro.training.words import summary

    return summary(
        values["bpc"],
        values["shortening_factor"],
        values["token_dependence"] if system.language_model.config.shortened_layers else None,
        values["gate_rate"] if system.is_speak else None,
        None if data.exemplar is None else values["boundary_f1"],
    )


def undecided(config: RunConfig, steps_per_epoch: int) -> str:
    """A line for a run too short for SPEAK's acceptance, which decides on windows whose text was read before."""
    training = config.training
    if not config.is_speak or training.acceptance == "never":
        return ""
    if training.drive != "proxy":
        return ""
    first = max(training.proxy_steps, steps_per_epoch)
    if training.steps > first:
        return ""
    return f"{training.steps} steps: --acceptance {training.acceptance} decides nothing before step {first}"


def command_of(arguments: argparse.Namespace) -> str:
    """The command as it was given, without the launcher."""
    script = arguments.command_line.startswith("gtok.py")
    return f"python experiments/{arguments.command_line}" if script else str(arguments.command_line)


def show(system: System, config: RunConfig, data: Data, found: Evaluation) -> None:
    """A few lines of the test text cut into tokens, and what is wrong with the tokenizer, if anything is."""
    from speak_neuro.training.words import advice, boundaries_of, in_colour, sample, white_space_f1

    fired, hard = boundaries_of(system, data.test, config.training.window)
    ids = data.test[: len(fired)]
    for line in sample(data.alphabet, ids, fired, hard, in_colour(sys.stdout)):
        print(f"  {line}")
    spaces = white_space_f1(data.alphabet.decode_lossy(ids), fired)
    for line in advice(config, found.shortening_factor, found.gate_rate, spaces):
        print(f"warning: {line}", file=sys.stderr)


def draw(folder: Path) -> None:
    """Curves of the run; without matplotlib one line says how to get them."""
    from speak_neuro.training.metrics_log import read_metrics

    try:
        plot_metrics(read_metrics(folder), folder / "curves.png", str(folder))
    except MissingExtra as error:
        print(f"no curves.png: {error}", file=sys.stderr)


def count(module: Any) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


if __name__ == "__main__":
    sys.exit(main())
