"""What a training run says: progress, warnings with their remedy, and a few lines of text cut into its tokens."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from speak_neuro.common.array_types import BoolArray
from speak_neuro.common.extras import extra
from speak_neuro.config import RunConfig
from speak_neuro.errors import MissingExtra
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.text.metrics import boundary_scores

USUAL_SF = (2.0, 8.0)
"""Characters per token outside which a tokenizer is hardly one: near single characters, or longer than words."""
DEAD_GATE = 0.005
WHITE_SPACE_F1 = 0.97
PLAIN_LINES = 20
"""Lines of progress of a run whose output is no terminal."""
SAMPLE_LINES, SAMPLE_WIDTH = 3, 90
_COLOURS = ("\033[48;5;153;38;5;16m", "\033[48;5;223;38;5;16m")
_HARD, _END = "\033[1;31m‖", "\033[0m"


def summary(
    bpc: float, shortening_factor: float, dependence: float | None, gate_rate: float | None, f1: float | None
) -> str:
    """An evaluation in words."""
    parts = [f"bpc {bpc:.4f}", f"shortening factor {shortening_factor:.3f}"]
    if dependence is not None:
        parts.append(f"token dependence {dependence:.3f}")
    if gate_rate is not None:
        parts.append(f"gate rate {gate_rate:.1%}")
    if f1 is not None:
        parts.append(f"boundary F1 against the exemplar {f1:.3f}")
    return ", ".join(parts)


class Progress:
    """A bar on a terminal, some plain lines elsewhere, where redraws would fill a file."""

    def __init__(self, steps: int, done: int, silent: bool, stream: IO[str]) -> None:
        from tqdm import tqdm

        self._steps, self._stream, self._silent = steps, stream, silent
        self._drawn = stream.isatty() and not silent
        self._bar = tqdm(
            total=steps, initial=done, unit="step", disable=not self._drawn, dynamic_ncols=True, file=stream
        )
        self._next = done + self._every

    @property
    def _every(self) -> int:
        return max(1, self._steps // PLAIN_LINES)

    def step(self, record: dict[str, Any]) -> None:
        """One more step."""
        shown = {"bpc": f"{record['bpc']:.3f}", "sf": f"{record['sf']:.2f}"}
        if "gate_rate" in record:
            shown["gate"] = f"{record['gate_rate']:.0%}"
        self._bar.update(1)
        self._bar.set_postfix(shown)
        if not self._drawn and not self._silent and record["step"] >= self._next:
            self._next = record["step"] + self._every
            told = ", ".join(f"{name} {value}" for name, value in shown.items())
            speed = f"{record['characters_per_second']:,.0f} characters/s"
            print(f"step {record['step']} of {self._steps}: {told}, {speed}", file=self._stream, flush=True)

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._drawn:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """The bar's last state stays."""
        self._bar.close()


def advice(config: RunConfig, shortening_factor: float, gate_rate: float, white_space_f1: float = 0.0) -> list[str]:
    """What is wrong with a trained SPEAK tokenizer, each with its remedy."""
    found = []
    low, high = USUAL_SF
    training = config.training
    if not low <= shortening_factor <= high:
        found.append(
            f"shortening factor {shortening_factor:.2f}, outside {low:g} to {high:g}: "
            + ("tokens are hardly longer than characters" if shortening_factor < low else "the neuron hardly fires")
            + f"; train longer (--steps, now {training.steps}) or on more text, or try another "
            f"--tokenizer-learning-rate (now {training.tokenizer_learning_rate:g}) or --exemplar-vocabulary (now "
            f"{training.exemplar_vocabulary})"
        )
    if config.neuron.reset_mode == "gated" and gate_rate < DEAD_GATE:
        found.append(
            f"the gate hardly opens (gate rate {gate_rate:.1%}): no hard reset ends a contextual range; raise "
            f"--reset-positive-weight (now {training.reset_positive_weight:g}), or train longer (--steps, now "
            f"{training.steps})"
        )
    if white_space_f1 >= WHITE_SPACE_F1:
        found.append(
            f"the boundaries are those of white space (F1 {white_space_f1:.3f}): --tokenizer whitespace gives them "
            f"without training; a smaller --exemplar-vocabulary (now {training.exemplar_vocabulary}) starts from "
            "parts of words"
        )
    return found


@torch.no_grad()
def boundaries_of(
    system: System, ids: npt.NDArray[np.int32], window: int, most: int = 16
) -> tuple[BoolArray, BoolArray]:
    """Boundaries and hard resets (L,) over the first windows of a text, each window by itself."""
    rows = min(most, len(ids) // window)
    length = min(window, len(ids))
    device, training = next(system.parameters()).device, system.training
    system.eval()
    part = torch.from_numpy(np.asarray(ids[: max(rows, 1) * length]).astype(np.int64).reshape(-1, length)).to(device)
    found = system.segment(part, system.language_model.pre(part))
    system.train(training)
    fired = found.boundaries.cpu().numpy().reshape(-1)
    hard = np.zeros_like(fired) if found.hard is None else found.hard.cpu().numpy().reshape(-1) & fired
    return fired, hard


def white_space_f1(text: str, fired: BoolArray) -> float:
    """How near boundaries are to those of white space, each after its last character; 0 for a text that has none."""
    spaces = np.array([character.isspace() for character in text], dtype=np.bool_)
    if spaces.mean() < 0.02:
        return 0.0
    after = spaces.copy()
    after[:-1] &= ~spaces[1:]
    before = np.zeros_like(after)  # the same cuts, one character earlier
    before[:-1] = spaces[1:] & ~spaces[:-1]
    return max(boundary_scores(fired, after).f1, boundary_scores(fired, before).f1)


def sample(
    alphabet: Alphabet, ids: npt.NDArray[np.int32], fired: BoolArray, hard: BoolArray, colour: bool
) -> list[str]:
    """Three lines of the text cut into tokens: in colours, or with bars; a double bar where a hard reset ends one."""
    lines: list[str] = []
    start = 0
    while len(lines) < SAMPLE_LINES and start < len(fired):
        stop = min(start + SAMPLE_WIDTH, len(fired))
        text = alphabet.decode_lossy(ids[start:stop])
        if (text.count("\n") < 3 and not text.isspace()) or start + SAMPLE_WIDTH >= len(fired):
            lines.append(_cut(text, fired[start:stop], hard[start:stop], colour))
        start = stop
    return lines


def _cut(text: str, fired: BoolArray, hard: BoolArray, colour: bool) -> str:
    parts, start, number = [], 0, 0
    shown = "".join(" " if character.isspace() else character for character in text)
    for end in [*(np.flatnonzero(fired) + 1).tolist(), len(text)]:
        if end <= start:
            continue
        token, closes = shown[start:end], bool(hard[end - 1])
        if colour:
            parts.append(_COLOURS[number % 2] + token + _END + (_HARD + _END if closes else ""))
        else:
            parts.append(token + ("‖" if closes else "|" if fired[end - 1] else ""))
        start, number = end, number + 1
    return "".join(parts)


def in_colour(stream: IO[str]) -> bool:
    """Whether to colour what goes to `stream`: a terminal, unless NO_COLOR says no."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


Log = Callable[[dict[str, Any]], None]


def logger_to(kind: str, folder: Any, config: dict[str, Any]) -> Log:
    """Where else the numbers of metrics.jsonl go: "tensorboard" or "wandb"."""
    if kind == "tensorboard":
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra("tensorboard is not installed; pip install tensorboard") from None
        writer: Any = SummaryWriter(str(folder))

        def write(record: dict[str, Any]) -> None:
            for name, value in record.items():
                if name != "step":
                    writer.add_scalar(name, value, record["step"])
            if "valid_bpc" in record:
                writer.flush()

        return write
    wandb = extra("wandb", "wandb")
    run = wandb.init(project="speak_neuro", name=folder.name, dir=str(folder), config=config, resume="allow")
    return lambda record: run.log(record, step=record["step"])
