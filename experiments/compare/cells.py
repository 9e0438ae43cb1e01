"""Markdown tables and the text of their cells. What nobody measured is an en dash."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from records import Record, nested_config
from settings import Setting, Variant

from speak_neuro.common.seeds import NONE, Comparison, Sample, compare, holm, p_value, sample
from speak_neuro.common.settings import from_dict
from speak_neuro.config import RunConfig
from speak_neuro.model.flops import character_flops

FLOPS = "kFLOPs per character"
"""The head of `cost`'s column."""
PROTOCOL = {
    "optimiser": "training.optimiser",
    "schedule": "training.schedule",
    "norm": "model.norm",
    "precision": "training.precision",
}
"""Settings of training that a table's numbers depend on."""


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def spread(found: Sample | None, digits: int) -> str:
    """mean ± standard deviation; without ± for a single seed."""
    if found is None:
        return NONE
    return number(found.mean, digits) + ("" if found.deviation is None else f" ± {found.deviation:.{digits}f}")


def of(values: Sequence[float]) -> Sample | None:
    return sample(values) if values else None


def percent(comparison: Comparison | None) -> str:
    return NONE if comparison is None else f"{100 * comparison.relative:+.2f} %".replace("-", "−")


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else NONE


def against(variant: Variant, reference: Variant | None) -> Comparison | None:
    """The difference and its test; none between two views of the same runs, which differ by no training."""
    if reference is None or reference is variant or not variant.bpc or not reference.bpc:
        return None
    found = compare(variant.by_seed, reference.by_seed)
    same = variant.config == reference.config
    return dataclasses.replace(found, p=None, sign=None, why="no test: the same runs") if same else found


def protocol(setting: Setting) -> str:
    """How the setting's runs were trained, in words: what tells these numbers from those of another version's runs."""
    runs = [run for variant in setting.variants for run in variant.runs]

    def named(name: str, of_runs: Sequence[Record] = runs) -> str:
        return " or ".join(sorted({str(run.config.get(name, NONE)) for run in of_runs}))

    begun = {run.started_from is not None for run in runs}
    told = [
        " or ".join(
            {False: "each from weights of its own", True: "branches of a mixture"}[each] for each in sorted(begun)
        ),
        *(f"{name} {named(key)}" for name, key in PROTOCOL.items()),
    ]
    if speak := [run for run in runs if run.system == "speak"]:
        told.append(
            f"SPEAK with drive {named('training.drive', speak)}, neuron loss {named('training.neuron_loss', speak)}"
        )
    return f"Protocol: {', '.join(told)}."


def cost(run: Record) -> float | None:
    """Thousands of FLOPs per character that inference takes; None where the run's sizes are not known."""
    if run.vocabulary is None or run.parameters_tokenizer is None or run.sf is None:
        return None
    config = from_dict(RunConfig, nested_config(run.config))
    return character_flops(config, run.vocabulary, run.parameters_tokenizer, run.sf) / 1e3


def p_cells(tests: Mapping[str, Comparison | None]) -> dict[str, str]:
    """The p-values of one family of tests, each with Holm's correction where there are several."""
    known = {name: test.p for name, test in tests.items() if test is not None and test.p is not None}
    corrected = holm(known) if len(known) > 1 else {}
    return {
        name: p_value(test) + (f"; Holm {corrected[name]:.2g}" if name in corrected else "")
        for name, test in tests.items()
    }
