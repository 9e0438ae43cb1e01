"""parity.html: one self-contained page that shows the verdict and, sequence by sequence, text, membrane and spikes.

Jinja2 escapes everything that comes from a text or a file: in the markup as HTML, in the script's data (`tojson`) as
JSON without a character that HTML could read as markup. The script only sets text.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from speak_neuro.common.pages import templates
from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.export.files.trace_file import Trace
from speak_neuro.pictures.view import is_right_to_left
from speak_neuro.sim.parity.bits import number_bits
from speak_neuro.sim.parity.compare import printable
from speak_neuro.sim.parity.levels import LevelRun

SHOWN_SEQUENCES = 24
SHOWN_POSITIONS = 1024
SHOWN_DIFFERENCES = 50

LEVELS = {
    "numpy reference": "The neuron's equation in plain numpy, given the trained network's own currents and gates: "
    "nothing may differ by a single bit.",
    "neuron": "Lava is given the trained network's own currents and gates: nothing may differ by a single bit.",
    "readout": "Lava computes currents and gates itself from the encoder's features. It adds the same products in "
    "another order, so potentials differ in their last digits, as they must; the spikes are what has to agree.",
}
"""What each backend is, for someone who sees the page and nothing else."""

_environment = templates("speak_neuro.sim")
_environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}


def render(report: dict[str, Any], exported: ExportedNeuron, trace: Trace, runs: dict[str, LevelRun]) -> str:
    """The page for a report of `parity.compare`; sequences that differ come first."""
    return _environment.get_template("report.html").render(
        passed=report["passed"],
        summary=_summary(report),
        backends=_backends(report),
        fixed=_fixed(report),
        differences=_differences(report),
        shown_differences=SHOWN_DIFFERENCES,
        facts=_facts(report),
        entropy=trace.entropy is not None,
        data=_sequences(exported, trace, runs),
    )


def _summary(report: dict[str, Any]) -> str:
    sequences, positions = report["trace"]["sequences"], report["trace"]["positions"]
    spikes = report["backends"]["numpy reference"]["spikes"]
    factor = f", {positions / spikes:.2f} characters a token" if spikes else ""
    return f"{spikes:,} spikes in {positions:,} characters{factor}, {sequences:,} sequences"


def _backends(report: dict[str, Any]) -> list[dict[str, Any]]:
    results = {"numpy reference": report["backends"]["numpy reference"], **report["levels"]}
    found = []
    for name, result in results.items():
        differing = result["membrane_mismatches"]
        rounded = result["passed"] and differing
        found.append(
            {
                "name": name if name not in report["levels"] else f"Lava float32, {name} level",
                "what": LEVELS[name],
                "state": "pass" if result["passed"] else "fail",
                "verdict": "differs" if not result["passed"] else "equal within rounding" if rounded else "equal",
                "mismatches": f"{result['mismatches']:,}",
                "membrane": f"{differing:,}" + (", all by rounding" if rounded else ""),
                "largest": f"{result['max_membrane_difference']:.3g}",
            }
        )
    return found


def _fixed(report: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each level of fixed point; none when it was not run."""
    found = []
    for level, result in report.get("fixed", {}).items():
        compared, formats = result["float"], result["format"]
        equal = not any(value for name, value in result.items() if name.endswith("mismatches"))
        cells = {
            "spikes that differ": f"{result['mismatches']:,}",
            "potentials that differ": f"{result['membrane_mismatches']:,}",
            "saturations": f"{result['saturations']:,}",
            "agreement with float": f"{compared['agreement']:.4%}",
            "F1": f"{compared['f1']:.5f}",
            "spikes unlike float": f"{compared['differing_spikes']:,}",
            "bound on the current's error": f"{compared['current_error_bound']:.3g}",
        }
        formats_in_words = (
            f"threshold {formats['threshold']:,}, soft reset {formats['soft_reset']:,}, decay {formats['decay']} of "
            f"{formats['decay_one']}, 24-bit state of {formats['range_in_thresholds']:.4g} thresholds"
        )
        found.append({"level": level, "equal": equal, "cells": cells, "format": formats_in_words})
    return found


def _differences(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every listed difference, in the words of the page."""
    found = []
    results = dict(report["levels"])
    results.update({f"fixed, {level}": result["float"] for level, result in report.get("fixed", {}).items()})
    for level, result in results.items():
        places = result.get("differences")
        if places is None:
            first = result["first_divergence"]
            places = [{**first, "kind": "first difference"}] if first else []
        found += [{"level": level, **place, "margin": f"{place['margin']:.3g}"} for place in places]
    return found


def _facts(report: dict[str, Any]) -> dict[str, str]:
    meta = report["trace"]["meta"]
    run = str(meta.get("run", "") or "")
    return {
        **({"Run": run} if run else {}),
        "Trained on": str(meta.get("device", "unknown")),
        "Data type": str(meta.get("dtype", "float32")),
        "Neuron": ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in report["neuron"].items()),
        "Simulator": "Lava's CPU simulator, "
        + ", ".join(
            f"{name} {version}"
            for result in [*report["levels"].values(), *report.get("fixed", {}).values()][:1]
            for name, version in result["simulator"].items()
        ),
        "Commit": report["commit"],
    }


def _sequences(exported: ExportedNeuron, trace: Trace, runs: dict[str, LevelRun]) -> dict[str, Any]:
    level = next(iter(runs), "")
    run = runs.get(level)
    differs = np.zeros(trace.current.shape, dtype=bool)
    if run is not None:
        differs = trace.valid & (run.spikes != trace.spikes)
        if run.membrane.dtype == np.float32:  # integers in float units are never the same bits
            differs |= trace.valid & (number_bits(run.membrane) != number_bits(trace.membrane))
    rows = np.argsort(~differs.any(axis=1), kind="stable")[:SHOWN_SEQUENCES]
    gate_open = trace.gate_logit > exported.gate_threshold[0]
    sequences = []
    for row in rows.tolist():
        length = min(int(trace.length[row]), SHOWN_POSITIONS)
        shown = slice(0, length)
        entry: dict[str, Any] = {
            "row": row,
            "rightToLeft": is_right_to_left(trace.text(row)),
            "length": int(trace.length[row]),
            "text": [printable(character) for character in trace.text(row)[:length]],
            "spikes": trace.spikes[row, shown].tolist(),
            "gate": gate_open[row, shown].astype(int).tolist(),
            "membrane": [round(value, 5) for value in trace.membrane[row, shown].tolist()],
        }
        if trace.entropy is not None:
            entry["entropy"] = [round(value, 2) for value in trace.entropy[row, shown].tolist()]
        if run is not None and differs[row, shown].any():
            entry["got"] = run.spikes[row, shown].tolist()
            entry["gotMembrane"] = [round(value, 5) for value in run.membrane[row, shown].tolist()]
        sequences.append(entry)
    return {"threshold": float(trace.threshold), "level": level, "total": trace.sequences, "sequences": sequences}
