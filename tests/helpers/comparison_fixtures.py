"""A made-up comparison as records: two data sets, sweeps of rate knobs, ablations, three seeds. Numbers by formula."""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "neuron.reset_mode": "gated",
    "neuron.reset_scale": 0.8,
    "tokenizer.kind": "speak",
    "tokenizer.prior": 0.2,
    "tokenizer.fixed_length": 4,
    "model.width": 32,
    "training.steps": 100,
    "training.batch": 4,
    "training.window": 64,
    "training.seed": 1,
    "training.acceptance": "metropolis",
    "training.rest_term": True,
    "training.rate_limit": 0.0,
    "training.exemplar_vocabulary": 5000,
    "training.exemplar_steps": 0,
}


def run(
    system: str, seed: int, bpc: float | None, sf: float | None, dataset: str = "en", **more: Any
) -> dict[str, Any]:
    """A run as collect.py writes it, its whole configuration given as knobs; `more`: knobs with _ for ., or fields."""
    knobs = {**BASE, "tokenizer.kind": system, "training.seed": seed}
    fields: dict[str, Any] = {}
    for name, value in more.items():
        section, _, rest = name.partition("_")
        if f"{section}.{rest}" in BASE:
            knobs[f"{section}.{rest}"] = value
        else:
            fields[name] = value
    values = {
        "name": f"{dataset}-{system}-{seed}",
        "system": system,
        "dataset": dataset,
        "seed": seed,
        "text": f"sha of {dataset}",
        "bpc": bpc,
        "sf": sf,
        "characters": 1000,
        "gate_rate": 0.2,
        "parameters_language_model": 9000,
        "parameters_tokenizer": 1000,
        "protocol": {"window": 64, "stride": 32},
        "curve": {
            "step": [50, 100],
            "bpc": [3.0, bpc],
            "sf": [sf, sf],
            "seconds": [5.0 if system == "speak" else 4.0, 10.0 if system == "speak" else 8.0],
        },
    }
    return {**values, **fields, "knobs": knobs}


def comparison() -> dict[str, Any]:
    """The file of collect.py for the whole comparison."""
    runs = [run("vanilla", 1, 2.30, 1.0), run("whitespace", 1, 2.40, 5.5)]
    for seed, shift, its in ((1, 0.0, 0.01), (2, 0.01, 0.0), (3, -0.01, -0.01)):
        runs.append(run("magnet", seed, 2.20 + its, 4.0))
        runs.append(run("speak", seed, 2.10 + shift, 4.2))
    runs += [run("magnet", 1, 2.15, 3.0, tokenizer_prior=0.33), run("magnet", 1, 2.35, 6.0, tokenizer_prior=0.15)]
    runs += [run("speak", 1, 2.25, 5.5, training_rate_limit=0.18)]
    runs += [run("fixed", 1, 2.5, 2.0, tokenizer_fixed_length=2), run("fixed", 1, 2.6, 4.0, tokenizer_fixed_length=4)]
    runs += [
        run("speak", 1, 2.2, 3.9, neuron_reset_mode="soft"),
        run("speak", 1, 2.3, 2.0, training_rest_term=False),
        run("speak", 1, 2.12, 4.1, training_acceptance="greedy"),
    ]
    runs += [run("magnet", 1, 1.9, 4.0, "fi"), run("speak", 1, 1.8, 4.5, "fi")]
    return {"metrics": {"config": {}, "runs": runs}}
