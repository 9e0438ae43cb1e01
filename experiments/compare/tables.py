"""The paper's tables (1, 3, 4, 5; GTok part) from results, as Markdown.

    python experiments/compare/tables.py experiments/results/comparison.json --out docs/tables_gtok.md
    python experiments/compare/tables.py runs/comparison evaluation.json --name wiki="encyclopaedic English"

Reads what collect.py, gtok.py --json and evaluate.py --json write, and run folders. A value that nobody measured is an
en dash. What is compared with what, and how, is in docs/comparison.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ablations import OTHER, TABLE_3, TABLE_5, ablation
from cells import FLOPS, against, cost, markdown, number, of, p_cells, percent, protocol, share, spread
from curves import equal_budgets
from selection import add_selection, select
from settings import BUDGET, REFERENCES, Setting, Variant, in_order, pareto

from speak_neuro.common.command import run_command
from speak_neuro.common.files import check_writable, write_or_print
from speak_neuro.common.seeds import NONE, P

ABOUT_TABLE_1 = (
    "Mean ± standard deviation over seeds. Differences to MAGNET are relative; the paper prints 100 x the absolute "
    "difference in BPC as a percentage. p pairs the two systems by seed: the paired t-test, the sign test, both "
    "two-sided, and in brackets the number of pairs; where a column holds several tests, p by Holm after them. FLOPs "
    "are those of reading a character, the tokenizer's included. *NAME, sampled* is the same runs with boundaries "
    "drawn as in training, as their original code evaluates; NAME takes the likelier ones. *NAME, started* are runs "
    "that began as dtp-unigram, which the original code does not have (`--exemplar-steps`)."
)
ABOUT_BUDGETS = (
    "Where the systems stand on their way, at the largest steps, training time and compute that all of them reach "
    "(validation text; the learning rate of a run that goes on further has not come to zero there):"
)
ABOUT_FRONTIER = (
    "Every point of every system's rate knob. One is on the frontier when no other is at least as good in BPC and SF "
    "and better in one:"
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tables.py", description=(__doc__ or "").split("\n\n")[0])
    add_selection(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="Markdown file (default: standard output)")
    return run_command(parser, tables, argv)


def tables(arguments: argparse.Namespace) -> int:
    """Read, render, write."""
    check_writable(arguments.out)
    text = render(select(arguments), arguments.command_line)
    write_or_print(text, arguments.out)
    return 0


def render(found: Sequence[Setting], command: str) -> str:
    """All tables that the runs have something for."""
    parts = ["# GTok results", f"Written by `{command}`; how to read it: [comparison.md](comparison.md)."]
    compared = [setting for setting in found if len(setting.systems()) > 1] or list(found)
    parts += ["## Table 1: systems", ABOUT_TABLE_1]
    if len(compared) > 1:
        parts.append(overview(compared))
    for setting in compared:
        parts += [f"### {setting.label}", facts(setting), table_1(setting)]
        parts += [part for part in (budgets(setting), frontier(setting)) if part]
    for title in (TABLE_3, TABLE_5, OTHER):
        blocks = [block for setting in found if (block := ablation(setting, title))]
        if blocks:
            parts += [f"## {title}", *blocks]
    costs = [block for setting in found if (block := table_4(setting))]
    if costs:
        parts += ["## Table 4: parameters and time", *costs]
    return "\n\n".join(parts) + "\n"


def facts(setting: Setting) -> str:
    """What is equal for all rows, and what was scored."""
    run = setting.variants[0].runs[0]
    steps, batch, window = (run.config.get(name, NONE) for name in BUDGET)
    sizes = [
        run.config.get(f"model.{name}", NONE) for name in ("width", "pre_layers", "shortened_layers", "post_layers")
    ]
    text = (
        f"{steps} steps of {batch} x {window} characters; model of width {sizes[0]}, "
        f"{sizes[1]} + {sizes[2]} + {sizes[3]} layers"
    )
    if run.characters:
        text += f"; test text of {run.characters:,} characters"
    if run.protocol:
        text += f", window {run.protocol['window']}, stride {run.protocol['stride']}"
    devices = sorted({r.device for v in setting.variants for r in v.runs if r.device})
    trained = f" Trained on: {'; '.join(devices)}." if devices else ""
    return f"{text}.{trained} {protocol(setting)}"


def overview(found: Sequence[Setting]) -> str:
    """Systems x data sets: BPC and SF of the main variants."""
    systems = in_order({system for setting in found for system in setting.systems()})
    rows = []
    for system in systems:
        cells = []
        for setting in found:
            main = setting.main(system)
            bpc, sf = (None, None) if main is None else (of(main.bpc), of(main.sf))
            cells.append(NONE if bpc is None else f"{spread(bpc, 3)} ({number(sf.mean if sf else None, 2)})")
        rows.append([system, *cells])
    head = ["BPC (SF)", *(setting.label for setting in found)]
    return markdown(head, rows)


def label(setting: Setting, variant: Variant) -> str:
    """The knobs by which the variant is told from the system's others."""
    knobs = setting.knobs(variant)
    return ", ".join(f"{key.partition('.')[2]} {value}" for key, value in knobs.items()) or NONE


def table_1(setting: Setting) -> str:
    """One row per system: its main variant, and its difference to MAGNET."""
    references = {name: variant for name in REFERENCES if (variant := setting.main(name))}
    # Runs from before it was measured have none.
    dependence = any(variant.token_dependence for variant in setting.variants)
    costs = any(cost(run) is not None for variant in setting.variants for run in variant.runs)
    systems = {system: variant for system in setting.systems() if (variant := setting.main(system))}
    tests = {
        name: {system: against(variant, reference) for system, variant in systems.items()}
        for name, reference in references.items()
    }
    p = {name: p_cells(family) for name, family in tests.items()}
    rows = []
    for system, variant in systems.items():
        row = [system, spread(of(variant.bpc), 4), spread(of(variant.sf), 2)]
        if dependence:
            row.append(spread(of(variant.token_dependence), 3))
        row.append(str(len(variant.runs)))
        for name in references:
            row += [percent(tests[name][system]), p[name][system]]
        if costs:
            row.append(number(cost(variant.runs[0]), 0))
        rows.append([*row, label(setting, variant)])
    head = ["system", "BPC", "SF", *(["token dependence"] if dependence else []), "seeds"]
    for name in references:
        head += [f"BPC against {name}", P]
    return markdown([*head, *([FLOPS] if costs else []), "knobs"], rows)


def budgets(setting: Setting) -> str:
    """Validation BPC at equal steps, equal wall time, equal compute."""
    found = equal_budgets(setting)
    if not found or len(setting.systems()) < 2:
        return ""
    names = {"steps": "{:,.0f} steps", "seconds": "{:,.1f} s", "flops": "{:.3g} FLOPs"}
    head = ["validation BPC at", *(names[axis].format(budget) for axis, (budget, _) in found.items())]
    rows = [
        [system, *(spread(of(values.get(system, [])), 4) for _, values in found.values())]
        for system in setting.systems()
        if any(values.get(system) for _, values in found.values())
    ]
    return f"{ABOUT_BUDGETS}\n\n{markdown(head, rows)}"


def frontier(setting: Setting) -> str:
    """Every point of every system's rate knob; empty when no system has more than one."""
    lines = {system: setting.frontier(system) for system in setting.systems()}
    if all(len(line) < 2 for line in lines.values()):
        return ""
    best = pareto([variant for line in lines.values() for variant in line])
    rows = [
        [
            system,
            label(setting, variant),
            spread(of(variant.bpc), 4),
            spread(of(variant.sf), 2),
            str(len(variant.runs)),
            "yes" if id(variant) in best else "",
        ]
        for system, line in lines.items()
        for variant in line
    ]
    return f"{ABOUT_FRONTIER}\n\n" + markdown(["system", "rate knob", "BPC", "SF", "seeds", "on the frontier"], rows)


def table_4(setting: Setting) -> str:
    """Parameters and, where evaluate.py timed them, tokenization and model per batch."""
    rows, said = [], set()
    for system in setting.systems():
        variant = setting.main(system)
        assert variant is not None
        timed = [run for run in variant.runs if run.timing]
        run = (timed or variant.runs)[0]
        model, own = run.parameters_language_model, run.parameters_tokenizer
        if model is None or own is None:
            continue
        timing = run.timing or {}
        read = timing.get("parameters_read")
        if timing:
            said.add(
                f"{timing.get('device', NONE)}: batches of {timing.get('batch', NONE)} x {timing.get('length', NONE)}"
                f" characters, median of {timing.get('repeats', NONE)}, {timing.get('threads', NONE)} thread(s)"
            )
        rows.append(
            [
                system,
                f"{model:,}",
                f"{own:,}",
                NONE if read is None else f"{read:,}",
                share(own, model + own),
                NONE if read is None else share(own + read, model + own),
                number(timing.get("tokenization_ms"), 2),
                number(timing.get("model_ms"), 2),
            ]
        )
    if not rows:
        return ""
    head = [
        "system",
        "language model",
        "tokenizer's own",
        "of the model, read by the tokenizer",
        "own / all",
        "own and read / all",
        "tokenization (ms / batch)",
        "model (ms / batch)",
    ]
    return "\n\n".join([f"### {setting.label}", markdown(head, rows), *sorted(said)])


if __name__ == "__main__":
    sys.exit(main())
