"""The table of a branching comparison: every system against one, paired by text and by seed.

    python experiments/compare/branches.py experiments/results/compare/compare_branch.json --against dtp-unigram

A run is a branch of a mixture (`suites.py branch`), named SYSTEM-SEED; mixtures differ in their seed. For each system

    difference    mean over seeds of its test BPC minus the reference's, in BPC and in % of the reference's
    text          standard error of that difference from the text alone: from its consecutive blocks
    seeds         the same from the seeds alone: deviation / sqrt(seeds)
    p             paired t-test and sign test over seeds, and the t-test's after Holm's correction over all rows
    FLOPs         of reading one character: the model at the system's SF, and whatever cuts its text

Texts are kept apart: where the runs are of several, each has a table.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from cells import FLOPS, cost, markdown, number, of, spread
from records import Record, load

from speak_neuro.common.command import run_command
from speak_neuro.common.files import check_writable, write_or_print
from speak_neuro.common.seeds import NONE, P, compare, holm, p_value, text_error
from speak_neuro.errors import SpeakError

HEAD = ("system", "BPC", "SF", "token dependence", FLOPS, "seeds")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="branches.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="files of collect.py, run folders")
    parser.add_argument("--against", default="dtp-unigram", metavar="NAME", help="the reference (default: dtp-unigram)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="Markdown file (default: standard output)")
    return run_command(parser, table, argv)


def table(arguments: argparse.Namespace) -> int:
    """Read, compare, write."""
    check_writable(arguments.out)
    records, unfinished = load(arguments.results)
    for line in unfinished:
        print(f"left out: {line}", file=sys.stderr)
    if not records:
        raise SpeakError(f"{', '.join(map(str, arguments.results))}: no finished branch; let one end first")
    texts = list(dict.fromkeys(record.dataset for record in records))
    tables = []
    for text in texts:
        groups = grouped([record for record in records if record.dataset == text])
        if arguments.against not in groups:
            raise SpeakError(f"{text}: --against is {arguments.against!r}; allowed: {', '.join(groups)}")
        tables.append((f"**{text}**\n\n" if len(texts) > 1 else "") + render(groups, arguments.against))
    write_or_print("\n\n".join(tables) + "\n", arguments.out)
    return 0


def grouped(records: Sequence[Record]) -> dict[str, dict[int, Record]]:
    """Branches by name and seed; what started from no mixture is refused, since it is another protocol."""
    found: dict[str, dict[int, Record]] = {}
    for record in records:
        name, _, seed = record.name.rpartition("-")
        if record.started_from is None or seed != str(record.seed) or record.bpc is None:
            raise SpeakError(f"{record.name}: no branch of a mixture; name runs of suites.py branch")
        found.setdefault(name.rpartition("/")[2], {})[record.seed] = record
    return found


def render(groups: dict[str, dict[int, Record]], against: str) -> str:
    """The table, best first."""
    bpc = {name: {seed: run.bpc or math.nan for seed, run in runs.items()} for name, runs in groups.items()}
    blocks = {name: {s: run.block_bpc for s, run in runs.items() if run.block_bpc} for name, runs in groups.items()}
    tests = {name: compare(values, bpc[against]) for name, values in bpc.items() if name != against}
    corrected = holm({name: test.p for name, test in tests.items() if test.p is not None})
    head = [*HEAD, f"BPC against {against}", "%", "± text", "± seeds", P, "p, Holm"]
    rows = []
    for name in sorted(bpc, key=lambda name: statistics.fmean(bpc[name].values())):
        runs = list(groups[name].values())
        row = [
            name,
            spread(of(list(bpc[name].values())), 4),
            spread(of([run.sf for run in runs if run.sf is not None]), 2),
            spread(of([run.token_dependence for run in runs if run.token_dependence is not None]), 3),
            number(mean([flops for run in runs if (flops := cost(run)) is not None]), 0),
            str(len(runs)),
        ]
        if name == against:
            rows.append([*row, *["–"] * 6])
            continue
        common = [bpc[name][seed] - bpc[against][seed] for seed in sorted(bpc[name].keys() & bpc[against].keys())]
        base = statistics.fmean(bpc[against].values())
        error = statistics.stdev(common) / math.sqrt(len(common)) if len(common) > 1 else None
        row += [
            signed(mean(common), 4),
            signed(None if not common else 100 * statistics.fmean(common) / base, 2),
            number(text_error(blocks[name], blocks[against]), 4),
            number(error, 4),
            p_value(tests[name]),
            number(corrected.get(name), 3),
        ]
        rows.append(row)
    return markdown(head, rows)


def mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def signed(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:+.{digits}f}".replace("-", "−")


if __name__ == "__main__":
    sys.exit(main())
