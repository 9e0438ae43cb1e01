"""Runs in the groups that are compared: settings, variants of a system within one, and the seeds of a variant.

    setting   same data, same model, same steps x batch x window: within it systems may be compared
    variant   within a setting, one system with one choice of its knobs; its runs differ in the seed alone

A system's main variant is the one with the most seeds; among equals, for SPEAK the one that differs from the other
variants in the fewest knobs (ablations change one knob of it at a time), for the others the one whose SF is nearest to
SPEAK's. `choices` limits SPEAK's to those with given knobs. A variant belongs to the system's frontier when it differs
from the main one in rate knobs only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from records import Record, merge

from speak_neuro.common.seeds import sample
from speak_neuro.config import SYSTEMS as REGISTRY
from speak_neuro.errors import SpeakError

SYSTEMS = (
    "vanilla",
    "fixed",
    "whitespace",
    "dtp-entropy",
    "dtp-unigram",
    "dtp-gumbel",
    "dtp-gumbel, sampled",
    "dtp-gumbel, started",
    "dtp-gumbel, started, sampled",
    "magnet",
    "magnet, sampled",
    "magnet, started",
    "magnet, started, sampled",
    "hnet",
    "speak",
)
"""The order of the paper's Table 1. "NAME, sampled" is the same runs with boundaries drawn at evaluation too; "NAME,
started" are other runs, which began as dtp-unigram (`--exemplar-steps`)."""
VIEWS = ("sampled", "likeliest")
REFERENCES = ("magnet", "magnet, sampled", "magnet, started")
BUDGET = ("training.steps", "training.batch", "training.window")
RATE_KNOBS = (
    "tokenizer.fixed_length",
    "tokenizer.prior",
    "tokenizer.script_priors",
    "training.exemplar_vocabulary",
    "training.token_price",
    "training.rate",
)
"""Settings that move a system's SF; names that begin like one of these count too."""


@dataclass
class Variant:
    """The runs of one system that differ in nothing but the seed."""

    system: str
    config: dict[str, Any]
    """Without seed."""
    runs: list[Record] = field(default_factory=list)

    @property
    def bpc(self) -> list[float]:
        return [run.bpc for run in self.runs if run.bpc is not None]

    @property
    def by_seed(self) -> dict[int, float]:
        """BPC of each seed; `settings` sees to it that a seed is there once."""
        return {run.seed: run.bpc for run in self.runs if run.bpc is not None}

    @property
    def token_dependence(self) -> list[float]:
        return [run.token_dependence for run in self.runs if run.token_dependence is not None]

    @property
    def sf(self) -> list[float]:
        return [run.sf for run in self.runs if run.sf is not None]

    @property
    def seeds(self) -> list[int]:
        return sorted(run.seed for run in self.runs)

    def mean_sf(self) -> float | None:
        return sample(self.sf).mean if self.sf else None

    def mean_bpc(self) -> float | None:
        return sample(self.bpc).mean if self.bpc else None


@dataclass
class Setting:
    """What is held equal, and the variants under it."""

    dataset: str
    label: str
    variants: list[Variant]
    choices: dict[str, str] = field(default_factory=dict)
    """Knobs, as text, that SPEAK's main variant has to have where some variant has them."""

    def systems(self) -> list[str]:
        """Those that have runs, in the order of the paper, unknown ones at the end."""
        return in_order({variant.system for variant in self.variants})

    def of(self, system: str) -> list[Variant]:
        return [variant for variant in self.variants if variant.system == system]

    def main(self, system: str) -> Variant | None:
        """The variant that stands for the system in Table 1."""
        candidates = self.of(system)
        if not candidates:
            return None
        if system == "speak":
            candidates = [variant for variant in candidates if has(variant, self.choices)] or candidates
        most = max(len(variant.bpc) for variant in candidates)
        candidates = [variant for variant in candidates if len(variant.bpc) == most]
        if len(candidates) == 1:
            return candidates[0]
        viewed = first_view(system)
        if viewed != system and (first := self.main(viewed)) is not None:  # two views of a system are of the same runs
            return next((variant for variant in candidates if variant.config == first.config), candidates[0])
        if system != "speak":
            own = self.main("speak")
            target = own.mean_sf() if own else None
            if target is not None:
                return min(candidates, key=lambda v: abs((v.mean_sf() or 0.0) - target))
        others = self.of(system)
        return min(candidates, key=lambda v: sum(len(differing(v.config, o.config)) for o in others))

    def frontier(self, system: str) -> list[Variant]:
        """The main variant and those that differ from it in rate knobs only, by SF."""
        main = self.main(system)
        if main is None:
            return []
        chosen = [v for v in self.of(system) if all(map(is_rate_knob, differing(v.config, main.config))) and v.sf]
        return sorted(chosen, key=lambda v: v.mean_sf() or 0.0)

    def ablations(self, system: str = "speak") -> list[tuple[Variant, dict[str, Any]]]:
        """Variants that differ from the main one in other knobs than its rate, each with these knobs."""
        main = self.main(system)
        if main is None:
            return []
        found = []
        for variant in self.of(system):
            changed = differing(variant.config, main.config)
            if changed and not all(map(is_rate_knob, changed)):
                found.append((variant, {key: variant.config.get(key) for key in changed}))
        return found

    def knobs(self, variant: Variant) -> dict[str, Any]:
        """The settings in which the points of the system's frontier differ, as this variant has them."""
        others = [o.config for o in self.frontier(variant.system)]
        keys = sorted({key for o in others for key in differing(o, variant.config)})
        return {key: variant.config.get(key) for key in keys}


def first_view(system: str) -> str:
    """The system whose runs `system` scores with boundaries found the other way; itself where it is no second view."""
    name, _, view = system.rpartition(", ")
    return name if view in VIEWS else system


def in_order(systems: set[str]) -> list[str]:
    """As in the paper's Table 1, unknown ones at the end."""
    return [system for system in SYSTEMS if system in systems] + sorted(systems - set(SYSTEMS))


def is_rate_knob(key: str) -> bool:
    return key.startswith(RATE_KNOBS)


def has(variant: Variant, choices: dict[str, str]) -> bool:
    """Whether the variant has these knobs."""
    return all(str(variant.config.get(key)) == value for key, value in choices.items())


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names whose values differ; a name that only one has counts."""
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


def settings(records: Iterable[Record]) -> list[Setting]:
    """The settings of all runs, in the order in which they first come.

    Runs are merged here too: data sets that were renamed may have become one.
    """
    chosen = [started(record) for record in merge(records)]
    if not chosen:
        raise SpeakError("no finished run; let one end first")
    grouped: dict[tuple[Any, ...], list[Record]] = {}
    for record in [*chosen, *second_views(chosen)]:
        grouped.setdefault(setting_key(record), []).append(record)
    labels = setting_labels(grouped)
    found = []
    for key, runs in grouped.items():
        by_variant: dict[tuple[str, str], Variant] = {}
        for run in runs:
            config = run.chosen
            variant = by_variant.setdefault((run.system, repr(sorted(config.items()))), Variant(run.system, config))
            variant.runs.append(run)
        found.append(Setting(runs[0].dataset, labels[key], list(by_variant.values())))
    return found


def started(record: Record) -> Record:
    """A run with sampled boundaries that began as dtp-unigram counts as a system of its own."""
    known = record.system in REGISTRY and REGISTRY.load(record.system).samples
    if known and record.config.get("training.exemplar_steps", 0):
        return dataclasses.replace(record, system=f"{record.system}, started")
    return record


def second_views(records: Iterable[Record]) -> list[Record]:
    """Runs that were scored with boundaries found in two ways, as the other way has it: a system of its own."""
    return [
        dataclasses.replace(
            record,
            system=f"{record.system}, {record.other['boundaries']}",
            bpc=record.other["bpc"],
            sf=record.other["sf"],
            # What the other way did not measure, or what is the same and shall not be shown twice.
            **dict.fromkeys(("tokens", "boundary_f1", "parameters_language_model", "timing", "other")),
            curve={},
        )
        for record in records
        if record.other
    ]


def setting_key(record: Record) -> tuple[Any, ...]:
    """Data (with the number of characters scored and how), budget and model."""
    model = {k: v for k, v in record.config.items() if k.startswith("model.")}
    budget = tuple(record.config.get(name) for name in BUDGET)
    return record.dataset, record.text, record.characters, repr(record.protocol), budget, repr(sorted(model.items()))


def setting_labels(grouped: dict[tuple[Any, ...], list[Record]]) -> dict[tuple[Any, ...], str]:
    """The data's name, and whatever tells settings of the same name apart."""
    labels: dict[tuple[Any, ...], str] = {}
    for key, (run, *_) in grouped.items():
        namesakes = [facets(runs[0]) for runs in grouped.values() if runs[0].dataset == run.dataset]
        parts = [run.dataset]
        parts += [own for own, *others in zip(facets(run), *namesakes, strict=True) if len(set(others)) > 1 and own]
        name = ", ".join(parts)
        taken = sum(label == name or label.startswith(f"{name} (") for label in labels.values())
        labels[key] = f"{name} ({taken + 1})" if taken else name
    return labels


def facets(run: Record) -> tuple[str, ...]:
    """What settings may differ in, in words; empty where it is not known."""
    c, scored = run.config, run.protocol
    layers = [c.get(f"model.{part}_layers", "?") for part in ("pre", "shortened", "post")]
    return (
        f"text {run.text[:8]}" if run.text else "",
        f"{c.get('training.steps', '?')} steps of {c.get('training.batch', '?')} x {c.get('training.window', '?')}",
        f"width {c.get('model.width', '?')}",
        f"{layers[0]} + {layers[1]} + {layers[2]} layers",
        f"scored {scored['stride']} of {scored['window']}" if scored else "",
        f"{run.characters} characters" if run.characters else "",
    )


def pareto(variants: Sequence[Variant]) -> set[int]:
    """Ids of the variants that no other beats: at least as good in BPC and SF, and better in one of them."""
    points = [(id(v), v.mean_bpc(), v.mean_sf()) for v in variants if v.bpc and v.sf]
    return {
        name
        for name, bpc, sf in points
        if bpc is not None
        and sf is not None
        and not any(
            (b is not None and s is not None) and b <= bpc and s >= sf and (b < bpc or s > sf) for _, b, s in points
        )
    }
