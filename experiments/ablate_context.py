"""What k characters of context buy: boundary F1, BPC and shortening factor by encoder, everything else the same.

    python experiments/ablate_context.py --json ablate_context.json
    python experiments/ablate_context.py --preset small --seeds 1 2 3 --json ablate_context.json

Trains one run for each of: `linear`, `convolution` with each k (both fold onto a chip), and `hourglass`; `window` on
request. Each leaves a run folder under --out, which experiments/bench/chip_costs.py can count. Finished runs of the
same settings are not trained again. Boundary F1 is against the Unigram exemplar, which is where training starts from
and is pulled towards, not a gold standard.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gtok

from speak_neuro.common.command import run_command, shorten_usage_errors
from speak_neuro.common.files import write_json
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.training.presets import PRESETS

ENCODERS = ("linear", "convolution", "hourglass", "window")
MEASURES = {"test_boundary_f1": "F1", "test_bpc": "BPC", "test_shortening_factor": "SF", "test_gate_rate": "hard"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="ablate_context.py",
        description=(__doc__ or "").split("\n\n")[0],
        epilog="Flags that are not listed here are those of experiments/gtok.py and go to every run.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), default="smoke", help="configuration to start from (default: %(default)s)"
    )
    parser.add_argument(
        "--encoders",
        nargs="+",
        choices=ENCODERS,
        default=list(ENCODERS[:3]),
        help="encoders to train (default: all but window)",
    )
    parser.add_argument(
        "--contexts",
        nargs="+",
        type=int,
        default=[1, 2, 4, 8],
        help="k of convolution and window (default: 1 2 4 8)",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1111], help="seeds; results are means over them")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/context"), help="folder of the run folders (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    given = list(sys.argv[1:] if argv is None else argv)
    training = gtok.build_parser()
    for one in (parser, training):
        shorten_usage_errors(one)
    known, rest = parser.parse_known_args([flag for flag in given if flag != "--debug"])
    # Checked before anything is trained, and by the parser that will read them.
    training.parse_args(rest)
    parser.set_defaults(**vars(known), rest=rest, given=given)
    return run_command(parser, ablate, ["--debug"] if "--debug" in given else [])


def ablate(arguments: argparse.Namespace) -> int:
    """Train what is missing and print the table."""
    # What is named twice is one: a run must not count twice in a mean.
    arguments.seeds = list(dict.fromkeys(arguments.seeds))
    variants = []
    for encoder in dict.fromkeys(arguments.encoders):
        takes_context = encoder in ("convolution", "window")
        variants += [(encoder, k) for k in (dict.fromkeys(arguments.contexts) if takes_context else [0])]
    rows = []
    for encoder, k in variants:
        results = [one_run(arguments, encoder, k, seed) for seed in arguments.seeds]
        row: dict[str, Any] = {"encoder": encoder, "context": k or None, "seeds": arguments.seeds}
        for name in MEASURES:
            values = [result[name] for result in results]
            row[name] = statistics.fmean(values)
            row[f"{name}_spread"] = max(values) - min(values)
        row["parameters_tokenizer"] = results[0]["parameters_tokenizer"]
        rows.append(row)
    print(f"{'encoder':>12} {'k':>3} " + " ".join(f"{title:>8}" for title in MEASURES.values()))
    for row in rows:
        numbers = " ".join(f"{row[name]:8.4f}" for name in MEASURES)
        print(f"{row['encoder']:>12} {row['context'] or '':>3} {numbers}")
    arguments.command_line += f" {shlex.join(arguments.given)}"
    write_result(arguments, {"runs": rows})
    return 0


def one_run(arguments: argparse.Namespace, encoder: str, k: int, seed: int) -> dict[str, Any]:
    """The test results of one run, trained unless it is there."""
    name = "-".join([encoder, *([str(k)] if k else []), *([f"seed{seed}"] if len(arguments.seeds) > 1 else [])])
    folder = arguments.out / name
    flags = ["--preset", arguments.preset, "--encoder", encoder, "--seed", str(seed), *arguments.rest]
    flags += ["--context", str(k)] if k else []
    results, made_by = folder / "results.json", folder / "flags.json"
    if results.is_file() and made_by.is_file() and json.loads(made_by.read_text(encoding="utf-8")) == flags:
        print(f"{name}: already there")
    else:
        print(f"{name}: training", flush=True)
        code = gtok.main([*flags, "--out", str(folder), "--overwrite"])
        if code > 128:
            raise KeyboardInterrupt(f"finished runs stay in {arguments.out}, {name} begins anew next time")
        if code:
            raise SpeakError(f"training {name} failed with exit code {code}")
        write_json(made_by, flags)
    metrics: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))["metrics"]
    return metrics


if __name__ == "__main__":
    raise SystemExit(main())
