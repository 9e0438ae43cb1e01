"""What every command shares: one-line errors, `--debug`, exit codes, atomic output files, result records."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from speak_neuro.common.ending import ended_as_interrupted
from speak_neuro.common.files import check_writable
from speak_neuro.errors import SpeakError

CLOSED_PIPE = 141
"""Exit code of a command whose output nobody reads to the end, as of any that SIGPIPE ends; 0 would say done."""


def run_command(
    parser: argparse.ArgumentParser,
    action: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv`, run `action`, and turn every expected failure into one line on stderr and an exit code.

    The action finds the command as it was given in `arguments.command_line`. A file named by --json is known to be
    writable before the work begins.
    """
    _add_debug_flag(parser)
    shorten_usage_errors(parser)
    arguments = parser.parse_args(argv)
    given = sys.argv[1:] if argv is None else argv
    arguments.command_line = f"{_called(action, parser.prog)} {shlex.join(given)}".rstrip()
    with odd_names_printed(), ended_as_interrupted() as ending:
        try:
            return _run(action, arguments, parser.prog)
        except KeyboardInterrupt as interrupt:
            print(": ".join([f"{parser.prog}: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
            return ending.exit_code


def at_least(arguments: argparse.Namespace, least: float, *names: str) -> None:
    """Refuse a number below `least` in any of the named arguments; one that was not given passes."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise SpeakError(f"--{name.replace('_', '-')} is {value}; allowed: at least {least}")


def _called(action: Callable[[argparse.Namespace], int], prog: str) -> str:
    """How the command is called: a script of experiments/ by its place, any other by its name."""
    parts = Path(action.__code__.co_filename).parts
    if "experiments" not in parts:
        return prog
    return "python " + "/".join(parts[len(parts) - 1 - parts[::-1].index("experiments") :])


@contextlib.contextmanager
def odd_names_printed() -> Iterator[None]:
    """Within it file names that are not UTF-8 are printed as the bytes they are."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    before = stream.errors
    stream.reconfigure(errors="surrogateescape")
    try:
        yield
    finally:
        stream.reconfigure(errors=before)


def _run(action: Callable[[argparse.Namespace], int], arguments: argparse.Namespace, name: str) -> int:
    code = CLOSED_PIPE
    try:
        if (result := getattr(arguments, "json", None)) is not None:
            check_writable(result)
        code = action(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output, `head` for one, has enough. What is still buffered must not fail again at exit.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    except (SpeakError, OSError, ValueError) as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            print(printable(f"{name}: error: {_one_line(error)}"), file=sys.stderr)
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


def printable(text: str) -> str:
    """`text` for a terminal: control characters, which a file's name or content may hold, as their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)
