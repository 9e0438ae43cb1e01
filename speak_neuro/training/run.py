"""A training run from its folder's lock to its results: by one process, or by several that work as one."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

import torch

from speak_neuro.common.command import at_least
from speak_neuro.common.device import choose_precision, describe_device
from speak_neuro.common.files import check_writable
from speak_neuro.common.provenance import commit, package_versions
from speak_neuro.common.settings import override, to_dict
from speak_neuro.config import RunConfig
from speak_neuro.errors import SpeakError
from speak_neuro.systems.run_folder import EXEMPLAR, Run, read_run, start_from, write_config
from speak_neuro.systems.system import System
from speak_neuro.training.checkpoints import has_begun
from speak_neuro.training.checks import check_folder, check_same_system, check_settings, unread
from speak_neuro.training.distributed import Ranks
from speak_neuro.training.fit import fit, resume
from speak_neuro.training.launch import command_of
from speak_neuro.training.outcome import finish, in_a_line, undecided
from speak_neuro.training.presets import PRESETS, faithful, with_adam
from speak_neuro.training.run_data import Data, read_data
from speak_neuro.training.run_lock import empty, is_leftover, locked
from speak_neuro.training.trainer import Trainer
from speak_neuro.training.words import Progress, logger_to


def train_run(arguments: argparse.Namespace, folder: Path, ranks: Ranks, device: torch.device) -> int:
    """`train`, as one of the processes `ranks`. The first reads and writes the folder and speaks."""
    with contextlib.ExitStack() as held:
        with ranks.agreed():
            if ranks.first:
                check_request(arguments, folder)
                held.enter_context(locked(folder))
                check_request(arguments, folder)  # once more, as nobody else can change it now
        return train_locked(arguments, folder, ranks, device)


def check_request(arguments: argparse.Namespace, folder: Path) -> None:
    """Refuse what cannot be done, before anything is read."""
    at_least(arguments, 1, "stop_after")
    check_folder(folder, bool(arguments.resume), arguments.overwrite)
    check_writable(arguments.json)


def train_locked(arguments: argparse.Namespace, folder: Path, ranks: Ranks, device: torch.device) -> int:
    """`train_run` with the folder's lock."""
    with ranks.agreed():
        run, config = settings(arguments, folder)
        precision = choose_precision(config.training.precision, device)
        config = config.change(training={"precision": precision})  # config.json tells which
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
    run = read_run(folder)
    config = override(run.config, arguments)
    check_same_system(folder, run.config, config)
    check_settings(config)
    return run, config


def prepare(
    arguments: argparse.Namespace, folder: Path, run: Run | None, config: RunConfig, ranks: Ranks, device: torch.device
) -> Data:
    """Read the text and make the run folder; the first process does, the others find what it learned there."""

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
