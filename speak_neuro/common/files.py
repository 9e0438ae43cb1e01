"""Files and streams that a command writes: checked before the work, replaced in one rename."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from speak_neuro.errors import SpeakError

TEMPORARY = ".tmp"
"""Suffix of the files that become the real ones."""


def check_writable(*paths: str | os.PathLike[str] | None) -> None:
    """Refuse output files that cannot be written, before the work whose results they are to hold; None is no file."""
    for target in (Path(path) for path in paths if path is not None):
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
    # A name that is not UTF-8 comes with its odd bytes as lone surrogates, which UTF-8 cannot hold. Escaped, \udcef,
    # they are what JSON has for them, and legible elsewhere.
    encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
    if _is_stream(path):
        # Appended: where standard output is a file, what is in it already stays.
        with open(path, mode.replace("w", "a"), encoding=encoding, errors=errors) as stream:
            yield stream
        return
    target = Path(os.path.realpath(path))
    name = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=TEMPORARY, dir=target.parent)
        with os.fdopen(descriptor, mode, encoding=encoding, errors=errors) as stream:
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


def legible(path: str | os.PathLike[str]) -> str:
    """A path as text for people: bytes that are not UTF-8 as escapes."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")


@contextlib.contextmanager
def utf8_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """A path in UTF-8 to a file that is read, for libraries that open no other: a link, where its own is not."""
    name = os.fspath(path)
    if name == legible(path):
        yield name
        return
    with tempfile.TemporaryDirectory(prefix="speak-link-") as folder:
        link = os.path.join(folder, "file")
        os.symlink(os.path.abspath(name), link)
        yield link


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
