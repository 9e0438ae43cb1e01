"""What every command shares: one-line errors, `--debug`, exit codes, atomic output files, result records."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any, NoReturn

from speak_neuro.errors import SpeakError

PACKAGES = ("speak-neuro", "torch", "snntorch", "numpy", "nir", "nirtorch", "lava-nc", "numba", "tokenizers")
TEMPORARY = ".tmp"
"""Suffix of the files that become the real ones."""
CLOSED_PIPE = 141
"""Exit code of a command whose output nobody reads to the end, as of any that SIGPIPE ends; 0 would say done."""


def run_command(
    parser: argparse.ArgumentParser,
    action: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv`, run `action`, and turn every expected failure into one line on stderr and an exit code.

    The action finds the command as it was given in `arguments.command_line`.
    """
    _add_debug_flag(parser)
    shorten_usage_errors(parser)
    arguments = parser.parse_args(argv)
    arguments.command_line = shlex.join([parser.prog, *(sys.argv[1:] if argv is None else argv)])
    code = CLOSED_PIPE
    try:
        code = action(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        print(": ".join([f"{parser.prog}: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output, `head` for one, has enough. What is still buffered must not fail again at exit.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    except (SpeakError, OSError, ValueError) as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            print(f"{parser.prog}: error: {_one_line(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, SpeakError) else 2
    return code


def _add_debug_flag(parser: argparse.ArgumentParser) -> None:
    """`--debug` before or after a subcommand."""
    parser.set_defaults(debug=False)
    # Without a default of its own, a subcommand's flag leaves alone what was given before the subcommand.
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    for part in parser._actions:
        if isinstance(part, argparse._SubParsersAction):
            for subparser in part.choices.values():
                subparser.add_argument(
                    "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
                )


def shorten_usage_errors(parser: argparse.ArgumentParser) -> None:
    """A wrong flag is one line too: the usage of a command with a hundred flags would push it off the screen."""

    def error(message: str) -> NoReturn:
        parser.exit(2, f"{parser.prog}: error: {message}; {parser.prog} --help lists what there is\n")

    parser.error = error  # type: ignore[method-assign]
    for part in parser._actions:
        if isinstance(part, argparse._SubParsersAction):
            for subparser in part.choices.values():
                shorten_usage_errors(subparser)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse an output file that cannot be written: to be called before the work whose result it shall hold."""
    target = Path(path)
    if target.is_dir():
        raise SpeakError(f"{target}: is a folder; name a file to write")
    folder = next(above for above in target.absolute().parents if above.exists())
    if not folder.is_dir():
        raise SpeakError(f"{target}: cannot be written, {folder} is not a folder; choose another place")
    if not target.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise SpeakError(f"{target}: cannot be written, no permission in {folder}; choose another place")


def check_distinct(inputs: Sequence[Path], outputs: Sequence[Path | None]) -> None:
    """Refuse an output file that is one of the inputs, whatever the names by which they are given."""
    for output in outputs:
        for given in inputs:
            if output is not None and output.is_file() and given.is_file() and output.samefile(given):
                raise SpeakError(f"{output}: is an input of this command; name another file to write")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary sibling of `path` and rename it over `path` on success.

    A failure at any point (an exception, a full disk) leaves the previous file as it was and no temporary file behind.
    A symbolic link keeps its place, the file it points to is replaced. What is no regular file (/dev/stdout, a named
    pipe) is written to as it is.
    """
    check_writable(path)
    encoding = None if "b" in mode else "utf-8"
    if _is_stream(path):
        # Appended: where standard output is a file, what is in it already stays.
        with open(path, mode.replace("w", "a"), encoding=encoding) as stream:
            yield stream
        return
    target = Path(os.path.realpath(path))
    name = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=TEMPORARY, dir=target.parent)
        with os.fdopen(descriptor, mode, encoding=encoding) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp creates 0600
        os.replace(name, target)
    except BaseException as error:
        if name is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        # A full disk gives no name, other failures give the temporary file's.
        if isinstance(error, OSError) and error.strerror and (name is None or error.filename in (None, name)):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def _is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a device, a pipe or an open descriptor, which a rename would replace by a file."""
    if os.fspath(path).startswith(("/dev/std", "/dev/fd/", "/proc/")):
        return True
    return os.path.exists(path) and not os.path.isfile(path)


def write_or_print(text: str, path: Path | None) -> None:
    """Write `text` to `path` and name it, or print the text where there is no path."""
    if path is None:
        print(text, end="")
        return
    with atomic_write(path, "w") as stream:
        stream.write(text)
    print(path)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as readable JSON, atomically. NaN and infinity are refused: other readers reject them."""
    with atomic_write(path, "w") as stream:
        json.dump(value, stream, indent=2, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; packages that are absent are left out."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def commit() -> str:
    """The source checkout's commit, with `+changes` when the tree differs from it; `unknown` outside a checkout."""
    root = Path(__file__).resolve().parent
    try:
        revision = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return revision + ("+changes" if changes else "")


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
