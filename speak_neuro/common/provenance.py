"""Where a result comes from: versions, commit, device, date."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from speak_neuro.common.files import write_json

PACKAGES = ("speak-neuro", "torch", "snntorch", "numpy", "nir", "nirtorch", "lava-nc", "numba", "tokenizers")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; packages that are absent are left out."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def commit() -> str:
    """The source checkout's commit, with `+changes` when the tree differs from it; `unknown` outside a checkout."""
    try:
        revision, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return revision + ("+changes" if changes else "")


def _git(*words: str) -> str:
    folder = Path(__file__).resolve().parent
    return subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def device_name() -> str:
    """The processor's model name and the number of cores this process may use."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def result_record(command: str, metrics: dict[str, Any], device: str | None = None) -> dict[str, Any]:
    """The shape of every committed measurement: command, commit, device, versions, date, metrics."""
    return {
        "command": command,
        "commit": commit(),
        "device": device or device_name(),
        "versions": package_versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "metrics": metrics,
    }


def write_result(arguments: argparse.Namespace, metrics: dict[str, Any], device: str | None = None) -> None:
    """Write a command's measurement to its --json, where one was given."""
    if arguments.json is not None:
        write_json(arguments.json, result_record(arguments.command_line, metrics, device))
