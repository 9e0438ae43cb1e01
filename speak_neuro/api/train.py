"""`speak-train` from Python: a tokenizer from texts in one call."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from speak_neuro.api.tokenizer import Tokenizer
from speak_neuro.common.files import atomic_write
from speak_neuro.config import TokenizerConfig
from speak_neuro.errors import SpeakError

Texts = str | os.PathLike[str] | Iterable[str] | None


def train(
    texts: Texts,
    out: str | os.PathLike[str],
    preset: str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Tokenizer:
    """Train a tokenizer with a language model, leave the run in the folder `out`, and return the tokenizer.

    `texts` is a path as `--data` takes it (a file, a folder), or an iterable of strings; None is the embedded English
    text, or with `resume` the run's own. `settings` are the flags of `speak-train --help-all` by their names, such as
    `steps=2000, encoder="convolution", device="cuda"`. An interrupted call goes on with `resume=True`.
    """
    from speak_neuro.training.command import build_parser
    from speak_neuro.training.command import train as run

    folder = Path(out)
    given: dict[str, Any] = {"out": folder, "preset": preset, "data": source(texts, folder), **settings}
    given |= {"resume": resume, "overwrite": overwrite, "quiet": quiet}
    parser = build_parser("speak_neuro.train")
    parser.error = _refuse  # type: ignore[method-assign]
    flags = to_flags(given)
    arguments = parser.parse_args(flags)
    kind = getattr(arguments, "tokenizer.kind") or TokenizerConfig().kind
    if kind != "speak" and not resume:
        raise SpeakError(
            f"tokenizer is {kind}; allowed here: speak, the others have no tokenizer to return: use speak-train"
        )
    arguments.command_line = " ".join(["speak-train", *flags])
    arguments.debug = False
    run(arguments)
    return Tokenizer.load(folder)


def source(texts: Texts, out: Path) -> Path | None:
    """Where the text lies; strings are written beside the run first, under a name of their content."""
    if texts is None or isinstance(texts, (str, os.PathLike)):
        if isinstance(texts, str) and "\n" in texts:
            raise SpeakError("texts is a string with line feeds; allowed: a path, or an iterable of strings as [text]")
        return None if texts is None else Path(texts)
    joined = "\n".join(texts)
    if not joined:
        raise SpeakError("texts are empty; give text")
    raw = joined.encode("utf-8", "surrogatepass")
    path = out.parent / "cache" / f"texts-{hashlib.sha256(raw).hexdigest()[:16]}.txt"
    if not path.exists():
        with atomic_write(path) as stream:
            stream.write(raw)
    return path


def to_flags(given: dict[str, Any]) -> list[str]:
    """Settings as the command line has them."""
    flags: list[str] = []
    for name, value in given.items():
        flag = name.replace("_", "-")
        if value is True:
            flags.append(f"--{flag}")
        elif value is False and name not in ("resume", "overwrite", "quiet", "stream", "faithful"):
            flags.append(f"--no-{flag}")
        elif value is not None and value is not False:
            flags += [f"--{flag}", str(value)]
    return flags


def _refuse(message: str) -> NoReturn:
    raise ValueError(f"{message}; speak-train --help-all lists what there is")
