"""What a training run reads: ids, alphabet, exemplar and its boundaries, and the record that names the text.

Small texts are in memory. Texts of more than IN_MEMORY bytes, and all with --stream, are memory-mapped from a cache
folder (`training.streamed_text`); the run's proxy then is a file in its folder (`supervision.proxy_file`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from speak_neuro.common.array_types import BoolArray
from speak_neuro.config import SYSTEMS, RunConfig
from speak_neuro.corpus.memory_map import trim
from speak_neuro.corpus.named_sets import NAMED, check_name, named_parts
from speak_neuro.corpus.splits import PARTS, digest, read_splits
from speak_neuro.errors import SpeakError
from speak_neuro.supervision.exemplar import UnigramExemplar
from speak_neuro.supervision.proxy import ProxyStore
from speak_neuro.supervision.proxy_file import FileProxy, ProxyCopy
from speak_neuro.systems.run_folder import EXEMPLAR, STATE, Run
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.streamed_text import StreamedText, boundaries, source_bytes

Ids = npt.NDArray[Any]
Say = Callable[[str], None]

LEAST_KNOWN = 0.5
"""Of a text's characters, to a given exemplar: below this it is one of another script."""
START = 100_000
IN_MEMORY = 1 << 27
PROXY = "proxy.bits"


@dataclass(frozen=True)
class Data:
    """The three parts of a text as ids (n,), in memory or memory-mapped, and what was learned from the train part."""

    train: Ids
    valid: Ids
    test: Ids
    alphabet: Alphabet
    exemplar: UnigramExemplar | None
    """For the systems that start from it or learn it; the others need none."""
    valid_exemplar: BoolArray | None
    test_exemplar: BoolArray | None
    record: dict[str, Any]
    """For config.json and results: source, characters, sha256, and the characters of each part."""
    proxy: Callable[[bool], ProxyStore | None]
    """Makes the run's proxy spikes, at the exemplar's boundaries; to be called when the run folder exists, with False
    by every process but the first one, and by those when the first has restored its own."""


def read_data(arguments: argparse.Namespace, config: RunConfig, folder: Path, run: Run | None) -> Data:
    """The text that `arguments` name, checked; `run` is the run of `folder` when it is resumed.

    Writes nothing into the run folder.
    """
    cache = arguments.cache or folder.parent / "cache"
    path = arguments.data

    def say(what: str) -> None:
        if not arguments.quiet:
            print(what, file=sys.stderr)

    if arguments.dataset is not None:
        if path is not None:
            raise SpeakError("--data and --dataset exclude each other; give one")
        check_name(arguments.dataset)
        say(f"preparing {arguments.dataset} in {cache}")
        path = named_parts(arguments.dataset, cache, arguments.dataset_files, arguments.dtp_hebrew_digits)
    elif arguments.dataset_files is not None or arguments.dtp_hebrew_digits:
        flag = "--dtp-hebrew-digits" if arguments.dataset_files is None else "--dataset-files"
        raise SpeakError(f"{flag} belongs to --dataset; name one of {', '.join(sorted(NAMED))}, or leave it away")
    elif path is None and run is not None:
        path = own_text(folder, run)
    record = {"source": arguments.dataset or ("embedded en" if path is None else str(path))}
    if arguments.dtp_hebrew_digits:
        record["points_to_spaces"] = True
    if path is not None and to_stream(path, arguments, run):
        return streamed(path, cache, record, arguments.exemplar, config, folder, run, say)
    if path is None and arguments.stream:
        raise SpeakError("--stream is for a text from --data or --dataset; the embedded text is in memory")
    return in_memory(path, record, arguments.exemplar, config, folder, run, say)


def own_text(folder: Path, run: Run) -> Path | None:
    """Where the text of a run that is resumed was; None for the embedded one."""
    source = str(run.record.get("data", {}).get("source", "embedded en"))
    if source == "embedded en":
        return None
    if source in NAMED:
        raise SpeakError(
            f"{folder}: was trained on the data set {source}; resume it with the flags --dataset... it had"
        )
    if not Path(source).exists():
        raise SpeakError(f"{folder}: its text {source} is not here; say where it is with --data")
    return Path(source)


def to_stream(path: Path, arguments: argparse.Namespace, run: Run | None) -> bool:
    """Whether the text is memory-mapped: a resumed run as it was, others by size or on request."""
    if run is not None:
        return bool(run.record.get("data", {}).get("memory_mapped", False))
    return arguments.stream or source_bytes(path) > IN_MEMORY


def in_memory(
    path: Path | None,
    record: dict[str, Any],
    given: Path | None,
    config: RunConfig,
    folder: Path,
    run: Run | None,
    say: Say,
) -> Data:
    """All of a text in memory."""
    parts = read_splits(path)
    check_lengths([len(part) for part in parts], config)
    check_start(parts.train[:START], config)
    sha256 = digest(parts)  # of the whole text, however much of the test part is scored
    parts = parts._replace(test=parts.test[: config.training.test_characters or None])
    describe(record, [len(part) for part in parts], sha256)
    check_same_text(folder, run, record)
    alphabet = run.alphabet if run is not None else Alphabet.learn(parts.train)
    check_alphabet(alphabet)
    exemplar = known_exemplar(given, config, folder, run, parts.train[:START])
    if exemplar is None and config.needs_exemplar:
        say("learning the exemplar's pieces")
        exemplar = UnigramExemplar.train(parts.train, vocabulary=config.training.exemplar_vocabulary)
    train_ids, valid_ids, test_ids = map(alphabet.encode, parts)
    if exemplar is None:
        return Data(train_ids, valid_ids, test_ids, alphabet, None, None, None, record, lambda first: None)
    train, valid, test = map(exemplar.boundaries, parts)

    def proxy(first: bool) -> ProxyStore:
        return ProxyStore.create(train)

    return Data(train_ids, valid_ids, test_ids, alphabet, exemplar, valid, test, record, proxy)


def streamed(
    path: Path,
    cache: Path,
    record: dict[str, Any],
    given: Path | None,
    config: RunConfig,
    folder: Path,
    run: Run | None,
    say: Say,
) -> Data:
    """A text memory-mapped from the cache."""
    text = StreamedText.prepare(path, cache, say)
    alphabet, train, valid = text.train.alphabet, text.train.ids, text.valid.ids
    check_lengths([len(train), len(valid), len(text.test)], config)
    check_start(text.train.text(0, START), config)
    test = text.test.ids[: config.training.test_characters or None]
    describe(record, [len(train), len(valid), len(test)], text.sha256)
    record["memory_mapped"] = True
    check_same_text(folder, run, record)
    if run is not None and alphabet != run.alphabet:
        raise SpeakError(f"{folder}: has another alphabet than this text's train part; begin anew with --overwrite")
    check_alphabet(alphabet)
    exemplar = known_exemplar(given, config, folder, run, text.train.text(0, START))
    if exemplar is None and config.needs_exemplar:
        exemplar = text.exemplar(config.training.exemplar_vocabulary, say)
    if exemplar is None:
        return Data(train, valid, test, alphabet, None, None, None, record, lambda first: None)
    begun = run is not None and (folder / STATE).exists()
    spikes = None if begun else text.train_boundaries(exemplar, say)

    def proxy(first: bool) -> ProxyStore:
        store: FileProxy | ProxyCopy
        if not first:
            store = ProxyCopy.of(folder / PROXY)
        else:
            store = FileProxy.open(folder / PROXY) if spikes is None else FileProxy.begin(folder / PROXY, spikes)
        store.releases.append(train)
        return store

    valid_ends, test_ends = (boundaries(exemplar, ids, alphabet) for ids in (valid, test))
    trim()
    return Data(train, valid, test, alphabet, exemplar, valid_ends, test_ends, record, proxy)


def known_exemplar(
    given: Path | None, config: RunConfig, folder: Path, run: Run | None, start: str
) -> UnigramExemplar | None:
    """The exemplar that a resumed run has saved, or the one `given` to a system that needs one; `start` of the text."""
    other = UnigramExemplar.load(given) if given and config.needs_exemplar else None
    if run is not None and (folder / EXEMPLAR).exists():
        own = UnigramExemplar.load(folder / EXEMPLAR, run.record.get("exemplar_sha256"))
        if other is not None and other.to_text() != own.to_text():
            raise SpeakError(f"{folder}: has an exemplar of its own, {given} is another; leave --exemplar away")
        return own
    if other is not None:
        characters = "".join(start.split())
        known = set("".join(other.pieces))
        share = sum(character in known for character in characters) / max(len(characters), 1)
        if share < LEAST_KNOWN:
            raise SpeakError(
                f"{given}: knows {share:.0%} of the characters at the text's start; give the exemplar of a run on such "
                "a text, or leave --exemplar away to learn one"
            )
    return other


def describe(record: dict[str, Any], sizes: list[int], sha256: str) -> None:
    """What identifies a text and its cuts."""
    record |= {"characters": sum(sizes), "sha256": sha256, "parts": dict(zip(PARTS, sizes, strict=True))}


def check_same_text(folder: Path, run: Run | None, record: dict[str, Any]) -> None:
    """Refuse to resume a run on another text, or on the same cut elsewhere; its path may have changed."""
    if run is None:
        return
    known = run.record.get("data", {})
    if any(known.get(name, record[name]) != record[name] for name in ("characters", "sha256", "parts")):
        raise SpeakError(
            f"{folder}: was trained on {in_words(known)}, this is {in_words(record)}; give the same --data to resume it"
        )


def in_words(data: dict[str, Any]) -> str:
    """A text's record for a reader."""
    parts = " / ".join(f"{count:,}" for count in data.get("parts", {}).values())
    return f"{data.get('source')} ({parts} characters, SHA-256 {str(data.get('sha256'))[:8]})"


def check_lengths(lengths: list[int], config: RunConfig) -> None:
    """Refuse a text too short for the configuration before anything is written."""
    sizes = dict(zip(PARTS, lengths, strict=True))
    needed = config.training.batch * (config.training.window + 1)
    if sizes["train"] < needed:
        raise SpeakError(
            f"the training part has {sizes['train']} characters, a batch of {config.training.batch} windows needs "
            f"{needed}; give more text, or a smaller --window or --batch"
        )
    for name in ("valid", "test"):
        if sizes[name] < 2:
            raise SpeakError(f"the {name} part has {sizes[name]} characters, it needs 2; give more text")


def check_start(start: str, config: RunConfig) -> None:
    """Refuse a text whose beginning shows that the system cannot cut it."""
    if why := SYSTEMS.load(config.tokenizer.kind).check_text(start):
        raise SpeakError(why)


def check_alphabet(alphabet: Alphabet) -> None:
    """Refuse a text without anything to predict."""
    if len(alphabet) < 3:
        raise SpeakError(
            f"the training part has one distinct character, {alphabet.characters!r}; give a text with at least two"
        )
