"""The project's exceptions: each carries the exit code that a command ends with.

0  done and equal        1  parity failed        2  usage or bad input        3  an extra is missing
"""

from __future__ import annotations


class SpeakError(Exception):
    """Bad input or impossible request. The message is one line: what, where, what was found, what to do."""

    exit_code = 2


class UnsupportedExport(SpeakError):
    """The checkpoint has something that cannot be exported exactly; the message lists every reason."""


class ParityError(SpeakError):
    """Two backends disagree."""

    exit_code = 1


class MissingExtra(SpeakError, ImportError):
    """An optional dependency is absent. The message names the command that installs it."""

    exit_code = 3


def first_line(error: BaseException | None) -> str:
    """The first line of what another library says, or the error's name when it says nothing."""
    return str(error or "").strip().split("\n")[0].strip() or type(error).__name__
