"""speak-doctor: what this installation can do, what is missing, and how to get it."""

from __future__ import annotations

import argparse
import importlib.util
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import device_name, write_result

CORE = ("torch", "snntorch", "numpy", "nir", "safetensors", "numba", "tokenizers", "tqdm")
COMMANDS = ("speak-train", "speak-tokenize", "speak-export", "speak-sim", "speak-plot", "speak-generate")


class Extra(NamedTuple):
    """An optional part: what it is for, and the modules that it needs."""

    name: str
    serves: str
    modules: tuple[str, ...]


EXTRAS = (
    Extra("lava", "simulation (speak-sim); Python 3.10", ("lava",)),
    Extra("hf", "transformers, data sets by name, RTok", ("transformers", "datasets", "peft", "accelerate")),
    Extra("viz", "training curves and figures", ("matplotlib",)),
    Extra("stats", "tests between systems", ("scipy",)),
    Extra("scale", "Parquet and Ray", ("ray", "pyarrow")),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="speak-doctor",
        description="Say which versions, devices and optional parts are here, what is missing and how to get it.",
        epilog="Exit codes: 0 everything that the core needs is here, 3 something is missing.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was found")
    return run_command(parser, examine, argv)


def examine(arguments: argparse.Namespace) -> int:
    """Look, and tell."""
    found: dict[str, Any] = {"versions": versions(), "extras": extras(), "devices": devices(), "commands": commands()}
    for line in told(found):
        print(line)
    write_result(arguments, found)
    return 0 if all(found["versions"].values()) else 3


def versions() -> dict[str, str | None]:
    """The installed version of each package of the core; None where there is none."""
    found: dict[str, str | None] = {}
    for name in ("speak-neuro", *CORE):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def extras() -> dict[str, list[str]]:
    """The modules that each extra lacks. They are looked for, not imported."""
    return {extra.name: [name for name in extra.modules if importlib.util.find_spec(name) is None] for extra in EXTRAS}


def devices() -> dict[str, Any]:
    """Processor and graphics cards, as torch sees them."""
    found: dict[str, Any] = {"python": platform.python_version(), "processor": device_name(), "cuda": []}
    if importlib.util.find_spec("torch") is None:
        return found
    import torch

    found["torch_built_for_cuda"] = torch.version.cuda
    if torch.cuda.is_available():
        found["cuda"] = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return found


def commands() -> dict[str, str | None]:
    """Where each command lies, beside this Python or on the path."""
    here = str(Path(sys.executable).parent)
    return {name: shutil.which(name, path=here) or shutil.which(name) for name in COMMANDS}


def told(found: dict[str, Any]) -> list[str]:
    """What was found, in lines, the remedies last."""
    lines, remedies = [], []
    about = found["devices"]
    lines.append(f"Python {about['python']} on {about['processor']}")
    for name, version in found["versions"].items():
        lines.append(f"  {name:12} {version or 'missing'}")
        if version is None:
            remedies.append(f"{name} is missing: pip install {'speak-neuro' if name == 'speak-neuro' else name}")
    lines.append("graphics cards: " + (", ".join(about["cuda"]) or "none that torch can use"))
    if about.get("torch_built_for_cuda") and not about["cuda"]:
        remedies.append(
            f"torch is built for CUDA {about['torch_built_for_cuda']} and finds no card: the build for processors "
            "is several GB smaller, see Install in the README"
        )
    for extra in EXTRAS:
        missing = found["extras"][extra.name]
        state = "here" if not missing else f"without {', '.join(missing)}"
        lines.append(f"extra {extra.name:6} {state}: {extra.serves}")
        if extra.name == "lava" and missing and sys.version_info[:2] != (3, 10):
            remedies.append(
                "lava-nc needs Python 3.10: let it live there, speak-sim parity --python /path/to/python3.10"
            )
        elif missing:
            remedies.append(f"for {extra.serves}: pip install 'speak-neuro[{extra.name}]'")
    for name, place in found["commands"].items():
        if place is None:
            remedies.append(f"{name} is not on the path: start it from {Path(sys.executable).parent}, or reinstall")
    return [*lines, *([""] if remedies else []), *remedies]


if __name__ == "__main__":
    sys.exit(main())
