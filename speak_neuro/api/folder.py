"""A tokenizer's folder, and its parts from whatever there is: such a folder, a run of either kind, a table file.

speak.json                        what cuts the text, the special tokens
speak_vocabulary.safetensors      the vocabulary, if there is one
speak_table.safetensors           runs that have a table, and RTok's
speak_network/                    other runs: config.json and model.safetensors
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from speak_neuro.api.boundaries import Boundaries, NetworkBoundaries, RTokBoundaries, TableBoundaries
from speak_neuro.common.digests import DIGEST, check_digest, digest_of
from speak_neuro.common.files import write_json
from speak_neuro.common.json_files import Strict, check_json
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import read_whole
from speak_neuro.errors import SpeakError
from speak_neuro.table.load_vocabulary import load_vocabulary
from speak_neuro.table.table import CompiledTable
from speak_neuro.table.tokenizer import TableTokenizer
from speak_neuro.table.vocabulary import Vocabulary

FORMAT = "speak_neuro tokenizer"
SCHEMA = 2
WITH_DIGEST = 2
"""The first schema with a digest."""
ABOUT, VOCABULARY = "speak.json", "speak_vocabulary.safetensors"
Parts = tuple[Boundaries, Vocabulary | None, tuple[str, ...]]
_ADVICE = "save one with speak_neuro.Tokenizer.save"


class _About(Strict):
    """speak.json."""

    boundaries: str
    special_tokens: list[str]


def save_parts(folder: Path, boundaries: Boundaries, vocabulary: Vocabulary | None, specials: tuple[str, ...]) -> None:
    """Write a tokenizer's folder."""
    boundaries.save(folder)
    if vocabulary is not None:
        vocabulary.save(folder / VOCABULARY)
    about = {"format": FORMAT, "schema": SCHEMA, "boundaries": boundaries.kind, "special_tokens": list(specials)}
    write_json(folder / ABOUT, {**about, DIGEST: digest_of(about)})


def load_parts(place: Path, device: str = "cpu") -> Parts:
    """Read a tokenizer's folder, a run folder, or a table file."""
    if place.is_file():
        return TableBoundaries(TableTokenizer(CompiledTable.read(place))), None, ()
    if (place / ABOUT).is_file():
        return _saved(place, device)
    return _run(place, device), None, ()


def _saved(folder: Path, device: str) -> Parts:
    path = folder / ABOUT
    values = parse_json(read_whole(path, _ADVICE), str(path), _ADVICE)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise SpeakError(f"{path}: JSON, but not of a tokenizer; {_ADVICE}")
    schema = values.get("schema")
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise SpeakError(
            f"{path}: schema is {schema!r}, this version reads 1 to {SCHEMA}; use the speak_neuro that wrote it"
        )
    about = check_json(values, _About, str(path), _ADVICE)
    if schema >= WITH_DIGEST:
        check_digest(values, None, path, _ADVICE)
    readers: dict[str, Callable[[Path], Boundaries]] = {
        TableBoundaries.kind: TableBoundaries.load,
        RTokBoundaries.kind: RTokBoundaries.load,
        NetworkBoundaries.kind: lambda folder: NetworkBoundaries.load(folder, device),
    }
    kind = about.boundaries
    if kind not in readers:
        raise SpeakError(f"{path}: boundaries is {kind!r}; allowed: {', '.join(readers)}")
    vocabulary = load_vocabulary(folder / VOCABULARY) if (folder / VOCABULARY).exists() else None
    return readers[kind](folder), vocabulary, tuple(about.special_tokens)


def _run(folder: Path, device: str) -> Boundaries:
    from speak_neuro.inference.compile_table import compile_table, no_tables
    from speak_neuro.rtok.tokenizers.speak import FRAMEWORK, CharacterTokenizer
    from speak_neuro.systems.run_folder import load_system, read_run

    run = read_run(folder)
    if run.record.get("framework") == FRAMEWORK:
        return RTokBoundaries.of(CharacterTokenizer.load(folder))
    system = load_system(run)
    if no_tables(system):
        return NetworkBoundaries.load(folder, device)
    return TableBoundaries(TableTokenizer(compile_table(system, run.config, run.alphabet)))
