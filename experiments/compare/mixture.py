"""Train one language model behind several systems in turn, and leave a run folder of each to branch from.

    python experiments/compare/mixture.py --data texts/text8 --out runs/mixture/1 --preset compare-cpu \\
        --flags "--steps 1500 --target-sf 4" --member "dtp-unigram=--tokenizer dtp-unigram" --member "speak="
    python experiments/gtok.py --data texts/text8 --out runs/branch/speak-1 --preset compare-cpu \\
        --start-from runs/mixture/1/speak --steps 500 --target-sf 4

The suite `branch` of experiments/compare/suites.py does both for every system. A finished mixture is left alone, one
that was stopped goes on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import commit, package_versions
from speak_neuro.common.settings import add_flags, override
from speak_neuro.config import RunConfig
from speak_neuro.errors import SpeakError
from speak_neuro.training.checks import add_data_flags, check_settings
from speak_neuro.training.presets import PRESETS
from speak_neuro.training.run_data import read_data


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="mixture.py", description="Train one language model behind several systems in turn."
    )
    add_data_flags(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the state and the members' run folders")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="compare-cpu", help="settings to start from")
    parser.add_argument("--flags", default="", help="settings of every member, in one string")
    parser.add_argument(
        "--member", action="append", required=True, metavar="NAME=FLAGS", help="a system and its settings; repeat it"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--quiet", action="store_true", help="say nothing on the way")
    return run_command(parser, train, argv)


def members_of(arguments: argparse.Namespace) -> dict[str, RunConfig]:
    """Each member's configuration."""
    parser = argparse.ArgumentParser(prog="--member")
    add_flags(parser, RunConfig)
    found = {}
    for text in arguments.member:
        name, equals, flags = text.partition("=")
        if not equals or not name.strip() or "/" in name or name in found:
            raise SpeakError(f"--member is {text!r}; allowed: NAME=FLAGS, each name once and a folder's")
        given = parser.parse_args([*shlex.split(arguments.flags), *shlex.split(flags)])
        # Proxies are shared, so nobody rewrites them.
        given.__dict__["training.acceptance"] = "never"
        found[name] = override(PRESETS[arguments.preset], given)
        check_settings(found[name])
    return found


def train(arguments: argparse.Namespace) -> int:
    """Train to the end, from the last checkpoint if there is one, and write the members' folders."""
    from speak_neuro.common.device import choose_device, describe_device
    from speak_neuro.systems.run_folder import EXEMPLAR, MODEL, STATE, save_model, write_config
    from speak_neuro.training.mixture import Mixture

    configs, folder = members_of(arguments), arguments.out
    if all((folder / name / MODEL).is_file() for name in configs):
        print(f"{folder}: finished")
        return 0
    device = choose_device(arguments.device)
    # The text is read as for a member that needs the exemplar, if there is one.
    needy = next((config for config in configs.values() if config.needs_exemplar), next(iter(configs.values())))
    data = read_data(arguments, needy, folder, None)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        mixture = Mixture.create(configs, data.alphabet, data.train, data.proxy(True), device)
    except ValueError as error:
        raise SpeakError(str(error)) from None
    if (folder / STATE).is_file():
        mixture.restore(folder)
    mixture.fit(folder, every=100)
    for member in mixture.members:
        own = folder / member.name
        own.mkdir(exist_ok=True)
        record = {
            "data": data.record,
            "command": arguments.command_line,
            "versions": package_versions(),
            "commit": commit(),
            "device": describe_device(device),
            "mixture": list(configs),
        }
        write_config(own, member.system.config, data.alphabet, record)
        if data.exemplar is not None and member.system.config.needs_exemplar:
            data.exemplar.save(own / EXEMPLAR)
        save_model(own, member.system)
    print(f"{folder}: {mixture.trainer.step} steps, members {', '.join(configs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
