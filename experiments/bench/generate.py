"""How fast a run writes text step by step, against the whole pass for every character, behind an equality check.

    python experiments/bench/generate.py --run runs/demo --json experiments/results/bench/generate.json

Uncached, a character costs one pass of tokenizer and language model over the whole text so far. Both are timed by
processor time, on one thread, in turns, at texts of the same lengths; --characters is the length of the last.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from speak_neuro.common.command import at_least, run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.errors import SpeakError
from speak_neuro.inference.generation import Generation, Sampling
from speak_neuro.inference.speak import Speak

PLACES = 8
"""Text lengths at which the whole pass is timed; between them it is interpolated."""
TOLERANCE = 1e-3
"""Most that two logits may differ."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench/generate.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="run folder")
    parser.add_argument("--characters", type=int, default=1000, help="length of the text at its end (default: 1000)")
    parser.add_argument("--repeats", type=int, default=5, help="texts written (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return run_command(parser, bench, argv)


def whole_pass(speak: Speak, generation: Generation) -> torch.Tensor:
    """Logits of the next character with nothing kept: boundaries of the whole text, then the whole model."""
    text = generation.texts[0]
    closes = torch.from_numpy(speak.spikes(text))[None]
    ids = torch.tensor(generation.ids[0])[None]
    with torch.no_grad():
        return speak.engine.system.language_model(ids, closes)[0, -1]


def bench(arguments: argparse.Namespace) -> int:
    """Measure, compare, print."""
    at_least(arguments, 100, "characters")
    at_least(arguments, 1, "repeats")
    torch.set_num_threads(1)
    speak = Speak.load(arguments.run)
    list(speak.generate("a", 40))  # loads what is loaded once
    found = [one_text(speak, arguments.characters, seed) for seed in range(arguments.repeats)]
    metrics = summary(found, arguments.characters)
    m = metrics
    print(
        f"{m['characters_per_second']:.0f} characters a second over {arguments.characters:,} characters; uncached "
        f"{m['uncached_characters_per_second']:.0f}: {m['ratio_whole_text']:.1f} times as fast, "
        f"{m['ratio_at_the_end']:.1f} times at the last character; logits differ by {m['largest_difference']:.1g}"
    )
    model = speak.engine.system.config.model
    sizes = {"width": model.width, "layers": model.pre_layers + model.shortened_layers + model.post_layers}
    metrics = {"run": arguments.run.name, **sizes, **metrics}
    write_result(arguments, metrics)
    return 0


def one_text(speak: Speak, characters: int, seed: int) -> dict[str, Any]:
    """Processor seconds of every step of one text, and of the whole pass at `PLACES` lengths of it."""
    generation = speak.generation(["T"], Sampling(seed=seed), context=characters + 1)
    places = {round(characters * (place + 1) / PLACES) for place in range(PLACES)}
    steps, whole, difference = [], {}, 0.0
    while len(generation.texts[0]) < characters:
        began = time.process_time()
        generation.step()
        steps.append(time.process_time() - began)
        length = len(generation.texts[0])
        if length in places:
            began = time.process_time()
            logits = whole_pass(speak, generation)
            whole[length] = time.process_time() - began
            difference = max(difference, float((logits - generation.logits[0]).abs().max()))
    if difference > TOLERANCE or generation.spikes[0] != speak.spikes(generation.texts[0]).tolist():
        raise SpeakError(f"the steps differ from the whole pass by {difference:.2g}; nothing is timed")
    return {"steps": steps, "whole": whole, "difference": difference}


def summary(found: list[dict[str, Any]], characters: int) -> dict[str, Any]:
    """Medians over the texts."""
    cached = statistics.median(sum(one["steps"]) / len(one["steps"]) for one in found)
    late = statistics.median(statistics.median(one["steps"][-50:]) for one in found)
    whole = {length: statistics.median(one["whole"][length] for one in found) for length in sorted(found[0]["whole"])}
    uncached = sum(whole.values()) / len(whole)  # equal distances: the mean over the text's lengths
    return {
        "characters": characters,
        "texts": len(found),
        "milliseconds_per_character": cached * 1e3,
        "uncached_milliseconds_by_length": {str(length): seconds * 1e3 for length, seconds in whole.items()},
        "characters_per_second": 1 / cached,
        "uncached_characters_per_second": 1 / uncached,
        "ratio_whole_text": uncached / cached,
        "ratio_at_the_end": whole[max(whole)] / late,
        "largest_difference": max(one["difference"] for one in found),
    }


if __name__ == "__main__":
    sys.exit(main())
