"""parity.html: one self-contained page that shows the verdict and, sequence by sequence, text, membrane and spikes.

Everything that comes from a text or a file reaches the page escaped: in the markup by `html.escape`, in the script's
data as JSON with every character that HTML could read as markup written as an escape. The script only sets text.
"""

from __future__ import annotations

import html
import json
import re
from importlib import resources
from typing import Any

import numpy as np

from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.export.files.trace_file import Trace
from speak_neuro.sim.parity.bits import number_bits
from speak_neuro.sim.parity.compare import printable
from speak_neuro.sim.parity.levels import LevelRun

SHOWN_SEQUENCES = 24
SHOWN_POSITIONS = 1024
SHOWN_DIFFERENCES = 50


def render(report: dict[str, Any], exported: ExportedNeuron, trace: Trace, runs: dict[str, LevelRun]) -> str:
    """The page for a report of `parity.compare`; sequences that differ come first."""
    template = resources.files("speak_neuro.sim").joinpath("report.html").read_text(encoding="utf-8")
    passed = report["passed"]
    values = {
        "VERDICT": "Parity holds" if passed else "Parity failed",
        "STATE": "pass" if passed else "fail",
        "SUMMARY": _summary(report),
        "BACKENDS": _backends(report),
        "FIXED": _fixed(report),
        "DIFFERENCES": _differences(report),
        "FACTS": _facts(report),
        "DATA": _script_json(_sequences(exported, trace, runs)),
    }
    # One pass, so that nothing inside an inserted value is taken for a placeholder.
    return re.sub(r"@@([A-Z]+)@@", lambda match: values[match.group(1)], template)


def _summary(report: dict[str, Any]) -> str:
    sequences, positions = report["trace"]["sequences"], report["trace"]["positions"]
    spikes = report["backends"]["numpy reference"]["spikes"]
    return html.escape(f"{spikes:,} spikes in {positions:,} characters, {sequences:,} sequences")


def _backends(report: dict[str, Any]) -> str:
    rows = []
    results = {"numpy reference": report["backends"]["numpy reference"]}
    results.update({f"Lava float32, {level} level": result for level, result in report["levels"].items()})
    for name, result in results.items():
        state = "pass" if result["passed"] else "fail"
        verdict = "equal" if result["passed"] else "differs"
        if result["passed"] and result["membrane_mismatches"]:
            verdict = "equal within rounding"
        cells = [
            f"{result['mismatches']:,}",
            f"{result['membrane_mismatches']:,}",
            f"{result['max_membrane_difference']:.3g}",
        ]
        rows.append(
            f'<tr><th scope="row">{html.escape(name)}</th>'
            f'<td><span class="badge {state}">{verdict}</span></td>'
            + "".join(f'<td class="number">{cell}</td>' for cell in cells)
            + "</tr>"
        )
    return "\n".join(rows)


def _fixed(report: dict[str, Any]) -> str:
    """The section about fixed point; nothing when it was not run."""
    rows, facts = [], {}
    for level, result in report.get("fixed", {}).items():
        compared, formats = result["float"], result["format"]
        equal = not any(value for name, value in result.items() if name.endswith("mismatches"))
        cells = [
            f"{result['mismatches']:,}",
            f"{result['membrane_mismatches']:,}",
            f"{result['saturations']:,}",
            f"{compared['agreement']:.4%}",
            f"{compared['f1']:.5f}",
            f"{compared['differing_spikes']:,}",
            f"{compared['current_error_bound']:.3g}",
        ]
        rows.append(
            f'<tr><th scope="row">{html.escape(level)}</th>'
            f'<td><span class="badge {"pass" if equal else "fail"}">{"equal" if equal else "differs"}</span></td>'
            + "".join(f'<td class="number">{cell}</td>' for cell in cells)
            + "</tr>"
        )
        facts[f"{level} level"] = (
            f"threshold {formats['threshold']:,}, soft reset {formats['soft_reset']:,}, decay {formats['decay']} of "
            f"{formats['decay_one']}, 24-bit state of {formats['range_in_thresholds']:.4g} thresholds"
        )
    if not rows:
        return ""
    heads = (
        "level",
        "Lava and the integers",
        "spikes that differ",
        "potentials that differ",
        "saturations",
        "agreement with float",
        "F1",
        "spikes unlike float",
        "bound on the current's error",
    )
    head = "".join(f'<th scope="col"{"" if i < 2 else " class=number"}>{name}</th>' for i, name in enumerate(heads))
    terms = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return (
        '<section aria-labelledby="fixed">\n<h2 id="fixed">In fixed point</h2>\n'
        "<p>Loihi-style number formats: Lava's fixed-point models against the integer reference, and the integers "
        "against the trained network's float run.</p>\n"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>\n'
        f"<dl>{terms}</dl>\n</section>"
    )


def _differences(report: dict[str, Any]) -> str:
    rows, total = [], 0
    results = dict(report["levels"])
    results.update({f"fixed, {level}": result["float"] for level, result in report.get("fixed", {}).items()})
    for level, result in results.items():
        places = result.get("differences")
        if places is None:
            first = result["first_divergence"]
            places = [{**first, "kind": "first difference"}] if first else []
        total += len(places)
        for place in places[:SHOWN_DIFFERENCES]:
            context = place["context"]
            text = (
                f"{html.escape(context['before'])}<mark>{html.escape(place['character'])}</mark>"
                f"{html.escape(context['after'])}"
            )
            rows.append(
                f"<tr><td>{html.escape(level)}</td><td class=number>{place['row']}</td>"
                f"<td class=number>{place['position']}</td><td class=context dir=auto>{text}</td>"
                f"<td class=number>{place['expected_spike']} / {place['got_spike']}</td>"
                f"<td class=number>{place['margin']:.3g}</td><td>{html.escape(place['kind'])}</td></tr>"
            )
    if not rows:
        return "<p>Not one spike differs.</p>"
    note = f"<p>The first {len(rows):,} of {total:,} listed in parity.json.</p>" if total > len(rows) else ""
    heads = ("level", "sequence", "position", "text", "trained / Lava", "distance to threshold", "kind")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'{note}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _facts(report: dict[str, Any]) -> str:
    meta = report["trace"]["meta"]
    facts = {
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
    return "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())


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
            "length": int(trace.length[row]),
            "text": [printable(character) for character in trace.text(row)[:length]],
            "spikes": trace.spikes[row, shown].tolist(),
            "gate": gate_open[row, shown].astype(int).tolist(),
            "membrane": [round(value, 5) for value in trace.membrane[row, shown].tolist()],
        }
        if run is not None and differs[row, shown].any():
            entry["got"] = run.spikes[row, shown].tolist()
            entry["gotMembrane"] = [round(value, 5) for value in run.membrane[row, shown].tolist()]
        sequences.append(entry)
    return {"threshold": float(trace.threshold), "level": level, "total": trace.sequences, "sequences": sequences}


def _script_json(value: Any) -> str:
    """JSON for a script element: ASCII, and without the characters that could end or open markup."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
