"""Tokenize a corpus with a table: text or Parquet files in, sharded Parquet out, on one machine or on a cluster.

    python experiments/tokenize_corpus.py --table T --out tokens corpus.txt
    python experiments/tokenize_corpus.py --table T --vocabulary V --output ids --out tokens corpus/*.parquet
    python experiments/tokenize_corpus.py --table T --out tokens --engine ray --ray-address auto corpus/

A document is a line of a text file or a row of a Parquet file; `table.shards` says what the output holds. The
shards depend on the files and the flags --shard-... alone: any number of workers and both engines write the same bytes.
A run that was interrupted goes on where it stopped when it is given again. With Ray the files, the table and the output
must lie where all nodes see them under the same path.

Exit codes: 0 done, 2 bad input, 3 pyarrow or ray missing.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from speak_neuro.common.command import run_command
from speak_neuro.common.extras import extra
from speak_neuro.common.files import write_json
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.table import shards
from speak_neuro.table.shards import Settings, Shard, Totals
from speak_neuro.table.tokenizer import load

PLAN, SUMMARY = "plan.json", "summary.json"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tokenize_corpus",
        description="Tokenize text or Parquet files with a table into sharded Parquet, the same bytes with any engine.",
    )
    parser.add_argument("files", nargs="+", type=Path, help="text or .parquet files, or folders of .txt and .parquet")
    parser.add_argument("--table", type=Path, required=True, help="table of speak-export --to table")
    parser.add_argument("--vocabulary", type=Path, help="vocabulary of speak-tokenize --build-vocabulary, for ids")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--output", choices=shards.COLUMNS, default="ends", help="token ends or ids (default: ends)")
    parser.add_argument(
        "--unit", choices=("character", "byte"), default="character", help="of ends (default: character)"
    )
    parser.add_argument("--column", default="text", help="text column of Parquet files (default: text)")
    parser.add_argument("--shard-bytes", type=int, default=64 << 20, help="of text in a shard (default: 64 MiB)")
    parser.add_argument(
        "--shard-rows", type=int, default=100_000, help="Parquet rows in a shard, at least; a row group stays whole"
    )
    parser.add_argument("--engine", choices=("processes", "ray"), default="processes", help="(default: processes)")
    parser.add_argument("--workers", type=int, default=0, help="shards at a time; 0: one for each core (default)")
    parser.add_argument("--ray-address", help="of a running cluster, or auto (default: start Ray on this machine)")
    parser.add_argument("--overwrite", action="store_true", help="replace shards of another run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write totals and time as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return run_command(parser, tokenize_corpus, argv)


def tokenize_corpus(arguments: argparse.Namespace) -> int:
    check(arguments)
    files = shards.corpus_files(arguments.files)
    settings = Settings(
        table=str(arguments.table.resolve()),
        vocabulary=str(arguments.vocabulary.resolve()) if arguments.vocabulary is not None else None,
        column=arguments.column,
        output=arguments.output,
        unit=arguments.unit,
    )
    out = arguments.out.resolve()
    parts = shards.plan(
        [f.resolve() for f in files], out, arguments.column, arguments.shard_bytes, arguments.shard_rows
    )
    claim(out, shards.description(settings, files, parts), arguments.overwrite)

    from tqdm import tqdm

    total, todo = Totals(), []
    for part in parts:
        done = shards.finished(part)
        if done is None:
            todo.append(part)
        else:
            total += done
    resumed = len(parts) - len(todo)
    engine = by_ray if arguments.engine == "ray" else by_processes
    with tqdm(total=len(parts), initial=resumed, unit="shard", desc="tokenize", disable=arguments.quiet) as bar:
        for counted in engine(todo, settings, arguments) if todo else ():
            total += counted
            bar.update()
    totals = {"documents": total.documents, "characters": total.characters, "tokens": total.tokens}
    write_json(out / SUMMARY, {"shards": len(parts), **totals})
    skipped = f", {resumed} of them from an earlier run" if resumed else ""
    print(
        f"{out}: {len(parts)} shards{skipped}, "
        f"{total.documents:,} documents, {total.characters:,} characters, {total.tokens:,} tokens"
    )
    write_result(arguments, {"shards": len(parts), **totals})
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot work before any file is written."""
    for name, least in (("shard_bytes", 1), ("shard_rows", 1), ("workers", 0)):
        if getattr(arguments, name) < least:
            flag = "--" + name.replace("_", "-")
            raise SpeakError(f"{flag} is {getattr(arguments, name)}; allowed: at least {least}")
    if arguments.output == "ids" and arguments.vocabulary is None:
        raise SpeakError("--output ids needs --vocabulary; make one with speak-tokenize --build-vocabulary")
    if arguments.engine == "ray":
        extra("ray", "speak-neuro[scale]")
    shards.arrow()

    load(arguments.table, arguments.vocabulary)


def claim(out: Path, description: dict[str, Any], overwrite: bool) -> None:
    """Make the folder this run's own: an earlier run goes on only when it is the same."""
    path = out / PLAN
    found = sorted(out.glob("shard-*.parquet")) if out.is_dir() else []
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if before != description and (found or before is not None):
        if not overwrite:
            raise SpeakError(f"{out}: holds the shards of another run; give another --out, or --overwrite")
        for shard in found:
            shard.unlink()
    shards.remove_leftovers(out)
    if before != description:
        write_json(path, description)


def by_processes(parts: list[Shard], settings: Settings, arguments: argparse.Namespace) -> Iterator[Totals]:
    """One shard after the other by each of some processes."""
    workers = min(arguments.workers or cores(), len(parts))
    if workers == 1:
        for part in parts:
            yield shards.write_shard(part, settings)
        return

    # Fresh interpreters: a fork would inherit the threads of libraries in an undefined state.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(shards.write_shard, part, settings) for part in parts]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def by_ray(parts: list[Shard], settings: Settings, arguments: argparse.Namespace) -> Iterator[Totals]:
    """Ray Data maps the shards, on whichever nodes have a core free."""
    import ray
    import ray.data

    started = not ray.is_initialized()
    if started:
        ray.init(address=arguments.ray_address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    nodes = set()
    try:
        workers = min(arguments.workers or int(ray.cluster_resources().get("CPU", 1)), len(parts))
        rows = ray.data.from_items([shards.as_row(part, settings) for part in parts], override_num_blocks=len(parts))
        done = rows.map(shards.write_row, concurrency=workers, num_cpus=1)
        for row in done.iter_rows():
            if row["error"]:
                raise SpeakError(row["error"])
            nodes.add(row["node"])
            yield Totals(row["documents"], row["characters"], row["tokens"])
    finally:
        if started:
            ray.shutdown()
    print(f"Ray: {len(nodes)} node(s) took part")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
