"""Tables 2 and 6 of the paper from results of rtok.py, as Markdown.

    python experiments/rtok_tables.py runs/uner/*/results.json --out table.md
    python experiments/rtok_tables.py experiments/results/rtok_uner.json

A row per tokenizer and setting: score (span F1 or accuracy, in percent) and average sequence length on every split,
mean ± standard deviation over seeds; then the means over the splits, and by how much the sequences are longer (+) or
shorter (-) than those of zett-original. With two seeds or more of both, p is Welch's two-sided t-test of the mean score
against `--against`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from seeds import compare

from speak_neuro.command import check_writable, result_record, run_command, write_json, write_or_print
from speak_neuro.errors import SpeakError

ORIGINAL = "zett-original"
NONE = "–"
TITLES = {"uner": ("Table 6: UNER, span F1 in percent", "F1"), "xnli": ("Table 2: XNLI, accuracy in percent", "acc.")}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="rtok_tables.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="FILE", help="results of rtok.py, or of this script")
    parser.add_argument("--out", type=Path, metavar="FILE", help="Markdown file (default: standard output)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all results as one file")
    parser.add_argument("--against", default="dytok-50", metavar="TOKENIZER", help="whom p compares with (dytok-50)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(build_parser(), tables, argv)


def tables(arguments: argparse.Namespace) -> int:
    """Read, render, write."""
    for path in (arguments.out, arguments.json):
        if path:
            check_writable(path)
    records = [record for path in arguments.results for record in read(path)]
    if not records:
        raise SpeakError("no result is given; name results.json of runs of experiments/rtok.py")
    text = "\n".join(render(task, part, arguments.against) for task, part in by_task(records).items())
    if arguments.json:
        devices = sorted({record["device"] for record in records})
        command = f"python experiments/{arguments.command_line}"
        write_json(arguments.json, result_record(command, {"runs": records}, "; ".join(devices)))
    write_or_print(text, arguments.out)
    return 0


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file: one of rtok.py, or many of `--json`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        metrics = values["metrics"]
    except (ValueError, KeyError, TypeError):
        raise SpeakError(f"{path}: not a result of rtok.py; give a run's results.json") from None
    records: list[dict[str, Any]] = metrics.get("runs", [values])
    for record in records:
        if "evaluations" not in record["metrics"]:
            raise SpeakError(f"{path}: holds no evaluations, so it is not of rtok.py; give a run's results.json")
    return records


def by_task(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Metrics of the runs of each task."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault(record["metrics"]["task"], []).append(record["metrics"])
    return found


def render(task: str, runs: Sequence[dict[str, Any]], against: str) -> str:
    """One task's table."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        rows.setdefault(row_name(run, runs), []).append(run)
    splits = [s for s in runs[0]["evaluations"] if all(s in run["evaluations"] for run in runs)]
    if not splits:
        raise SpeakError(f"the runs of {task} have no evaluated split in common; evaluate them on the same splits")
    title, unit = TITLES[task]
    head = ["tokenizer", "seeds", *(f"{s} {unit} / length" for s in splits), f"mean {unit}", "ΔLen", f"p ({against})"]
    original = next((part for name, part in rows.items() if part[0]["tokenizer"] == ORIGINAL), None)
    other = next((part for name, part in rows.items() if part[0]["tokenizer"] == against), None)
    lines = [f"### {title}", "", table_line(head), table_line(["---"] * len(head))]
    for name, part in rows.items():
        score = part[0]["score"]
        cells = [name, str(len({run["config"]["training"]["seed"] for run in part}))]
        for split in splits:
            scores = [100 * run["evaluations"][split][score] for run in part]
            lengths = [run["evaluations"][split]["average_length"] for run in part]
            cells.append(f"{spread(scores)} / {statistics.mean(lengths):.2f}")
        cells.append(spread(mean_scores(part, splits)))
        cells.append(NONE if original is None else f"{shorter(part, original, splits):+.1f} %")
        scores = mean_scores(other, splits) if other is not None and other is not part else [0.0]
        p = compare(mean_scores(part, splits), scores).p if any(scores) else None
        cells.append(NONE if p is None else f"{p:.3f}")
        lines.append(table_line(cells))
    trained = sorted({run["train"] for run in runs})
    models = sorted({f"{run['model']} with {run['embedder']}" for run in runs})
    about = f"Trained on {', '.join(trained)}; encoder {', '.join(models)}. Lengths count specials, before any cut."
    return "\n".join([*lines, "", about, ""])


def row_name(run: dict[str, Any], runs: Sequence[dict[str, Any]]) -> str:
    """The tokenizer, with the settings in which runs of that tokenizer differ."""
    same = [other for other in runs if other["tokenizer"] == run["tokenizer"]]
    parts = []
    for section, values in run["config"].items():
        for name, value in values.items():
            if name != "seed" and any(other["config"][section][name] != value for other in same):
                parts.append(f"{name.replace('_', ' ')} {value}")
    if any(other["embedder"] != run["embedder"] for other in runs):
        parts.append(run["embedder"])
    return run["tokenizer"] + (f" ({', '.join(parts)})" if parts else "")


def mean_scores(part: Sequence[dict[str, Any]], splits: Sequence[str]) -> list[float]:
    """Each run's mean score over the splits, in percent."""
    return [100 * statistics.mean(run["evaluations"][s][run["score"]] for s in splits) for run in part]


def shorter(part: Sequence[dict[str, Any]], original: Sequence[dict[str, Any]], splits: Sequence[str]) -> float:
    """Mean over the splits of the relative difference in length, in percent."""
    differences = []
    for split in splits:
        own, base = (
            statistics.mean(run["evaluations"][split]["average_length"] for run in rows) for rows in (part, original)
        )
        differences.append(100 * (own / base - 1))
    return statistics.mean(differences)


def spread(values: Sequence[float]) -> str:
    """Mean, and the standard deviation if there is one."""
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2f}"


def table_line(cells: Sequence[str]) -> str:
    """A row of Markdown."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
