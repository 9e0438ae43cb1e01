"""speak-generate: text written by a trained run, its tokens shown as they close."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from speak_neuro.common.command import run_command
from speak_neuro.common.files import check_writable, write_or_print
from speak_neuro.common.provenance import write_result
from speak_neuro.pictures.terminal import paint, wants_colour


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="speak-generate",
        description="Go on with a prompt, character by character, with a run's language model; its neuron cuts the "
        "text while it is written.",
        epilog="The same command writes the same text. Formats: text; marked, with a bar behind each token; json, one "
        "object a prompt with the prompt and its tokens.",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of speak-train")
    parser.add_argument("--prompt", action="append", required=True, help="beginning of the text; several are one batch")
    parser.add_argument("--characters", type=int, default=200, help="characters to write to each (default: 200)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="0 takes the likeliest character, 1 draws as trained (default: 0.8)",
    )
    parser.add_argument("--top-k", type=int, default=0, help="only the k likeliest characters (default: 0, all)")
    parser.add_argument(
        "--top-p", type=float, default=1.0, help="only the likeliest ones of this probability together (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument(
        "--context", type=int, help="most characters the language model sees at once (default: a training window)"
    )
    parser.add_argument("--format", choices=("text", "marked", "json"), default="text", help="default: text")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="output file (default: standard output, as it is written)"
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts and characters per second as JSON")
    return run_command(parser, generate, argv)


def generate(arguments: argparse.Namespace) -> int:
    """Write, and show what was written."""
    from speak_neuro.inference.generation import Sampling
    from speak_neuro.inference.speak import Speak

    check_writable(arguments.out)
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed)
    speak = Speak.load(arguments.run, arguments.device)
    prompts: list[str] = arguments.prompt
    # One text is shown while it grows; several would run through each other.
    live = arguments.out is None and len(prompts) == 1 and arguments.format != "json"
    colour = live and arguments.format == "text" and wants_colour(sys.stdout)
    if live:
        print(prompts[0], end="", flush=True)
    tokens: list[list[str]] = [[] for _ in prompts]
    began = time.perf_counter()
    generation = speak.generation(prompts, sampling, arguments.context)
    for row, token in generation.run(arguments.characters):
        tokens[row].append(token)
        if live:
            print(
                shown(generation.spikes[row][-1], token, len(tokens[row]), arguments.format, colour), end="", flush=True
            )
    seconds = time.perf_counter() - began
    if live:
        print()
    else:
        lines = [line(prompt, found, arguments.format) for prompt, found in zip(prompts, tokens, strict=True)]
        write_or_print("\n".join(lines) + "\n", arguments.out)
    written = arguments.characters * len(prompts)
    metrics = {"prompts": len(prompts), "characters": written, "tokens": sum(map(len, tokens)), "seconds": seconds,
               "characters_per_second": written / seconds}  # fmt: skip
    write_result(arguments, metrics)
    return 0


def shown(closed: bool, token: str, index: int, style: str, colour: bool) -> str:
    """A token on its way to the terminal."""
    if style == "text" and not colour:
        return token
    return paint(token, "plain" if closed else "open", index, colour)


def line(prompt: str, tokens: list[str], style: str) -> str:
    """One finished text."""
    if style == "json":
        return json.dumps({"prompt": prompt, "tokens": tokens}, ensure_ascii=False)
    return prompt + ("│" if style == "marked" else "").join(tokens)


if __name__ == "__main__":
    sys.exit(main())
