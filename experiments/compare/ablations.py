"""SPEAK's variants beside SPEAK (the paper's Tables 3 and 5, GTok part): what each change does to BPC and SF."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cells import against, markdown, of, percent, protocol, spread
from settings import REFERENCES, Setting, Variant, is_rate_knob

from speak_neuro.common.seeds import NONE, P, p_value, sample

PAPER_DIRECTION = {
    ("neuron.reset_mode", "hard"): "worse",
    ("neuron.reset_mode", "soft"): "worse",
    ("training.rest_term", False): "worse: the term is needed",
    ("training.acceptance", "greedy"): "worse: the Metropolis-Hastings step matters",
}
"""What the paper says of a change, for the changes on which it is known."""
TABLE_3 = "Table 3: what a spike does to the potential"
TABLE_5 = "Table 5 (GTok part): acceptance and the second term of L_mem"
OTHER = "Other changes to SPEAK"
ABLATED = {
    "neuron.": TABLE_3,
    "training.acceptance": TABLE_5,
    "training.temperature": TABLE_5,
    "training.rest_term": TABLE_5,
}
"""Beginnings of the knobs of each ablation table."""


def table_of(changed: dict[str, Any]) -> str:
    """The table of a variant: that of all its changes (but for its rate), or the table of others."""
    of_each = {
        next((table for start, table in ABLATED.items() if key.startswith(start)), OTHER)
        for key in changed
        if not is_rate_knob(key)
    }
    return of_each.pop() if len(of_each) == 1 else OTHER


def ablation(setting: Setting, title: str) -> str:
    """SPEAK as it is, and every variant whose changes belong into this table."""
    main = setting.main("speak")
    chosen = [(variant, changed) for variant, changed in setting.ablations() if table_of(changed) == title]
    if main is None or not chosen:
        return ""
    directed = any(paper_direction(changed) for _, changed in chosen)
    references = {name: variant for name in REFERENCES if (variant := setting.main(name))}
    told = described({key: main.config.get(key) for key in keys_of(chosen)})
    base = [told, *scores(main), NONE, NONE, *compared_with(main, references.values())]
    rows = [base + ([NONE] if directed else [])]
    for variant, changed in chosen:
        difference = against(variant, main)
        row = [described(changed), *scores(variant), percent(difference), p_value(difference)]
        row += compared_with(variant, references.values())
        rows.append(row + ([paper_direction(changed) or NONE] if directed else []))
    head = ["SPEAK with", "BPC", "SF", "hard resets", "seeds", "BPC against the first row", P]
    head += [f"against {name}" for name in references]
    table = markdown(head + (["paper"] if directed else []), rows)
    return f"### {setting.label}\n\n{protocol(setting)}\n\n{table}"


def compared_with(variant: Variant, references: Iterable[Variant]) -> list[str]:
    return [percent(against(variant, reference)) for reference in references]


def keys_of(chosen: Sequence[tuple[Variant, dict[str, Any]]]) -> list[str]:
    return sorted({key for _, changed in chosen for key in changed})


def scores(variant: Variant) -> list[str]:
    gates = [run.gate_rate for run in variant.runs if run.gate_rate is not None]
    gate = NONE if not gates else f"{100 * sample(gates).mean:.1f} %"
    return [spread(of(variant.bpc), 4), spread(of(variant.sf), 2), gate, str(len(variant.runs))]


def described(knobs: dict[str, Any]) -> str:
    return ", ".join(f"{key.partition('.')[2]} {value}" for key, value in knobs.items())


def paper_direction(changed: dict[str, Any]) -> str | None:
    """The paper's word on a variant with a single change."""
    if len(changed) != 1:
        return None
    return PAPER_DIRECTION.get(next(iter(changed.items())))
