"""One line for a person from a parity report."""

from __future__ import annotations

from typing import Any

from speak_neuro.sim.fixed.compare import fixed_lines


def summary(report: dict[str, Any]) -> list[str]:
    """The verdict in a few lines, for a terminal."""
    lines = []
    for level, result in report["levels"].items():
        line = (
            f"{level} level: {result['spikes']:,} spikes, {result['sequences']:,} sequences, "
            f"{result['mismatches']:,} mismatches"
        )
        if level == "neuron":
            line += f", {result['membrane_mismatches']:,} membrane differences"
        elif result["mismatches"]:
            line += (
                f" ({result['explained']:,} within rounding, {result['consequent']:,} following from them, "
                f"{result['unexplained']:,} not explained)"
            )
        lines.append(line)
        place = result["first_divergence"]
        if place and (level == "neuron" or result["mismatches"]):
            lines.append(
                f"  first difference: sequence {place['row']}, position {place['position']}, "
                f"character {place['character']!r}: trained {place['expected_spike']} "
                f"(membrane {place['expected_membrane']!r}), Lava {place['got_spike']} "
                f"(membrane {place['got_membrane']!r})"
            )
    for level, result in report.get("fixed", {}).items():
        lines.append(
            f"fixed point, {level} level: {result['spikes']:,} spikes, {result['sequences']:,} sequences, "
            f"{result['mismatches']:,} mismatches, {result['membrane_mismatches']:,} membrane differences "
            "between Lava and the integer reference"
        )
        lines += fixed_lines(result)
    reference = report["backends"]["numpy reference"]
    if not reference["passed"]:
        lines.append(
            f"numpy reference: {reference['mismatches']:,} mismatches, "
            f"{reference['membrane_mismatches']:,} membrane differences"
        )
    lines.append("parity: " + ("passed" if report["passed"] else "FAILED"))
    return lines
