"""Tables 2 and 6 of the paper from results of rtok.py, as Markdown.

    python experiments/compare_rtok/tables.py runs/uner/*/results.json --out table.md
    python experiments/compare_rtok/tables.py experiments/results/rtok/rtok_uner.json

A row per tokenizer and setting: score (span F1 or accuracy, in percent) and average sequence length on every split,
mean ± standard deviation over seeds; then the means over the splits, and by how much the sequences are longer (+) or
shorter (-) than those of zett-original. With two common seeds or more, p is the paired t-test and the sign test of the
mean score against `--against` with the same encoder, data and training (`seeds`). The same run given twice counts once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speak_neuro.common.command import run_command
from speak_neuro.common.files import check_writable, write_or_print
from speak_neuro.common.json_files import Strict, check_json, read_json
from speak_neuro.common.provenance import write_result
from speak_neuro.common.same_run import check_agreement, distinct
from speak_neuro.common.seeds import NONE, P, compare, p_value
from speak_neuro.errors import SpeakError

ORIGINAL = "zett-original"
MEASURED = (
    "evaluations",
    "selected_epoch",
    "selected_score",
    "training_seconds",
    "curve",
    "merges",
    "parameters_trained",
    "parameters_encoder",
    "parameters_tokenizer",
)
"""What a run found; everything else of its metrics was chosen, and with the seed decides which run it is."""
OWN = ("tokenizer", "mimic", "entropy", "config.neuron", "config.speak")
"""What is chosen about the tokenizer alone: two tokenizers are compared where all else is equal."""
REPEATS = 1e-9
"""Relative difference up to which a score is the same number: the results are copies, not new evaluations."""
TITLES = {"uner": ("Table 6: UNER, span F1 in percent", "F1"), "xnli": ("Table 2: XNLI, accuracy in percent", "acc.")}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tables.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="FILE", help="results of rtok.py, or of this script")
    parser.add_argument("--out", type=Path, metavar="FILE", help="Markdown file (default: standard output)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all results as one file")
    parser.add_argument("--against", default="dytok-50", metavar="TOKENIZER", help="whom p compares with (dytok-50)")
    return run_command(parser, tables, argv)


def tables(arguments: argparse.Namespace) -> int:
    """Read, render, write."""
    check_writable(arguments.out)
    records = read_all(arguments.results)
    if not records:
        raise SpeakError("no result is given; name results.json of runs of experiments/rtok.py")
    text = "\n".join(render(task, part, arguments.against) for task, part in by_task(records).items())
    devices = sorted({record["device"] for record in records})
    write_result(arguments, {"runs": records}, "; ".join(devices))
    write_or_print(text, arguments.out)
    return 0


@dataclass(frozen=True)
class Result:
    """A run's record, and where it was found."""

    record: dict[str, Any]
    place: str

    @property
    def run(self) -> str:
        """Equal for the same run in two places."""
        seed = self.record["metrics"]["config"]["training"]["seed"]
        return json.dumps([row_of(self.record["metrics"]), seed], sort_keys=True)

    @property
    def scores(self) -> dict[str, float | None]:
        metrics = self.record["metrics"]
        return {
            f"{kind} on {split}": found.get(kind)
            for split, found in metrics["evaluations"].items()
            for kind in (metrics["score"], "average_length")
        }


def read_all(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The records of all runs of the files, each once."""
    results = []
    for path in paths:
        records = read(path)
        places = [str(path) if len(records) == 1 else f"{path}, run {n}" for n in range(1, len(records) + 1)]
        results += [Result(record, place) for record, place in zip(records, places, strict=True)]
    return [result.record for result in distinct(results, lambda result: result.run, joined)]


def joined(first: Result, second: Result) -> Result:
    """Two results of one run, which agree: the splits of both."""
    scores = (first.scores, second.scores)
    check_agreement((first.place, second.place), scores, dict.fromkeys([*scores[0], *scores[1]], REPEATS))
    metrics = first.record["metrics"]
    evaluations = {**second.record["metrics"]["evaluations"], **metrics["evaluations"]}
    return Result({**first.record, "metrics": {**metrics, "evaluations": evaluations}}, first.place)


class _Measured(Strict):
    """What the tables take of a run."""

    task: str
    score: str
    config: dict[str, Any]
    evaluations: dict[str, dict[str, float | None]]


class _Record(Strict):
    """A result of rtok.py."""

    metrics: _Measured
    device: str


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file: one of rtok.py, or many of `--json`."""
    advice = "give a run's results.json"
    values = read_json(path, dict[str, Any], advice)
    metrics = values.get("metrics")
    if not isinstance(metrics, dict):
        raise SpeakError(f"{path}: not a result of rtok.py; {advice}")
    records = metrics.get("runs", [values])
    check_json(records, list[_Record], str(path), advice)
    return list(records)


def by_task(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Metrics of the runs of each task."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault(record["metrics"]["task"], []).append(record["metrics"])
    return found


def row_of(run: dict[str, Any]) -> dict[str, Any]:
    """All that was chosen about a run but its seed, flat: "config.training.epochs" -> 3. Data by their digest."""
    row: dict[str, Any] = {}
    for name, value in run.items():
        if name == "config":
            row.update({f"config.{s}.{key}": v for s, part in value.items() for key, v in part.items()})
        elif name == "data":
            row["data"] = value.get("sha256") or json.dumps(value, sort_keys=True)
        elif name not in MEASURED:
            row[name] = value
    row.pop("config.training.seed", None)
    return row


def rows_of(runs: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each row, which differ in the seed alone, by the row's name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        found.setdefault(json.dumps(row_of(run), sort_keys=True), []).append(run)
    return {row_name(part[0], runs): part for part in found.values()}


def render(task: str, runs: Sequence[dict[str, Any]], against: str) -> str:
    """One task's table."""
    rows = rows_of(runs)
    splits = [s for s in runs[0]["evaluations"] if all(s in run["evaluations"] for run in runs)]
    if not splits:
        raise SpeakError(f"the runs of {task} have no evaluated split in common; evaluate them on the same splits")
    title, unit = TITLES[task]
    head = ["tokenizer", "seeds", *(f"{s} {unit} / length" for s in splits), f"mean {unit}", "ΔLen"]
    head.append(f"{P}, against {against}")
    lines = [f"### {title}", "", table_line(head), table_line(["---"] * len(head))]
    for name, part in rows.items():
        score = part[0]["score"]
        cells = [name, str(len(part))]
        for split in splits:
            scores = [100 * run["evaluations"][split][score] for run in part]
            lengths = [run["evaluations"][split]["average_length"] for run in part]
            cells.append(f"{spread(scores)} / {statistics.mean(lengths):.2f}")
        cells.append(spread(list(mean_scores(part, splits).values())))
        original = reference(part, rows, ORIGINAL)
        cells.append(NONE if original is None else f"{shorter(part, original, splits):+.1f} %")
        other = reference(part, rows, against)
        tested = other is not None and other is not part
        cells.append(p_value(compare(mean_scores(part, splits), mean_scores(other, splits)) if tested else None))
        lines.append(table_line(cells))
    trained = sorted({run["train"] for run in runs})
    models = sorted({f"{run['model']} with {run['embedder']}" for run in runs})
    about = f"Trained on {', '.join(trained)}; encoder {', '.join(models)}. Lengths count specials, before any cut."
    return "\n".join([*lines, "", about, ""])


def reference(
    part: list[dict[str, Any]], rows: dict[str, list[dict[str, Any]]], tokenizer: str
) -> list[dict[str, Any]] | None:
    """The row of `tokenizer` that has in common with `part` all that is not the tokenizer's own; none if not one."""
    if part[0]["tokenizer"] == tokenizer:
        return part
    found = [other for other in rows.values() if other[0]["tokenizer"] == tokenizer and common(other) == common(part)]
    return found[0] if len(found) == 1 else None


def common(part: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in row_of(part[0]).items() if not name.startswith(OWN)}


def row_name(run: dict[str, Any], runs: Sequence[dict[str, Any]]) -> str:
    """The tokenizer, with everything chosen in which runs of that tokenizer differ; the embedder where any two do."""
    row = row_of(run)
    same = [row_of(other) for other in runs if other["tokenizer"] == run["tokenizer"]]
    names = {name: None for other in [row, *same] for name in other}
    shown = [name for name in names if any(other.get(name) != row.get(name) for other in same)]
    parts = [told(name, row.get(name)) for name in shown if name != "embedder"]
    if any(other["embedder"] != run["embedder"] for other in runs):
        parts.append(run["embedder"])
    return run["tokenizer"] + (f" ({', '.join(parts)})" if parts else "")


def told(name: str, value: Any) -> str:
    """A setting in words; texts that are mimicked by their names, data by the beginning of their digest."""
    if isinstance(value, list):
        value = " ".join(map(str, value)) or "none"
    elif name == "data":
        value = str(value)[:8]
    return f"{name.rpartition('.')[2].replace('_', ' ')} {value}"


def mean_scores(part: Sequence[dict[str, Any]], splits: Sequence[str]) -> dict[int, float]:
    """Each seed's mean score over the splits, in percent."""
    return {
        run["config"]["training"]["seed"]: 100 * statistics.mean(run["evaluations"][s][run["score"]] for s in splits)
        for run in part
    }


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
