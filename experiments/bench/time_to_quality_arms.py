"""What the time-to-quality benchmark compares: the text, the arms, how a speed-up is read off, and the picture."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speak_neuro.common.extras import extra
from speak_neuro.common.files import atomic_write
from speak_neuro.config import SYSTEMS, RunConfig
from speak_neuro.corpus.reader import embedded_text
from speak_neuro.errors import SpeakError
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.presets import with_adam

if TYPE_CHECKING:
    from speak_neuro.supervision.proxy import ProxyStore

RECIPE = {"quarter": 4, "half": 2, "recipe": 1}
ABLATIONS: dict[str, dict[str, Any]] = {
    "but-cosine": {"schedule": "cosine"},
    "but-float32": {"precision": "float32"},
    "but-late": {"cooldown": 0.4},
}
ARMS = ("adam", "adam-bf16", *RECIPE, "but-adam", "but-post", *ABLATIONS)
STARTED = "-started"
LABELS = {
    "adam": "Adam, post-norm, float32: as before",
    "adam-bf16": "Adam, post-norm: as before",
    "recipe": "the recipe",
    "but-adam": "recipe but Adam 0.004",
    "but-post": "recipe but post-norm",
    "but-cosine": "recipe but cosine",
    "but-late": "recipe but rates fall late",
    "but-float32": "recipe but float32",
}


def parse_system(name: str) -> str:
    """A system's name, checked."""
    if name.removesuffix(STARTED) not in SYSTEMS:
        raise argparse.ArgumentTypeError(f"{name!r}; allowed: {', '.join(SYSTEMS)}, with {STARTED} behind it")
    return name


class Text:
    """Training and test text, their ids, and exemplars of the training text, each learned once."""

    def __init__(self, train: str, test: str) -> None:
        self.train = train
        self.alphabet = Alphabet.learn(train)
        self.ids, self.test_ids = self.alphabet.encode(train), self.alphabet.encode(test)
        self.sha256 = hashlib.sha256(f"{train}\0{test}".encode()).hexdigest()
        self._ends: dict[int, Any] = {}

    def proxy(self, config: RunConfig) -> ProxyStore | None:
        """A run's proxy spikes, where it has any."""
        if not config.needs_exemplar:
            return None
        from speak_neuro.supervision.exemplar import UnigramExemplar
        from speak_neuro.supervision.proxy import ProxyStore

        size = config.training.exemplar_vocabulary
        if size not in self._ends:
            self._ends[size] = UnigramExemplar.train(self.train, vocabulary=size).boundaries(self.train)
        return ProxyStore.create(self._ends[size])


def read(folder: Path | None, characters: int) -> Text:
    """Training text, and as many characters of the test text."""
    if folder is None:
        text = embedded_text("en")
        cut = int(0.9 * len(text))
        return Text(text[:cut], text[cut : cut + characters])
    try:
        train, test = ((folder / name).read_text(encoding="utf-8") for name in ("train.txt", "test.txt"))
    except OSError as error:
        raise SpeakError(
            f"{error.filename}: {error.strerror}; --data names a folder with train.txt and test.txt"
        ) from None
    return Text(train, test[:characters])


def build_arms(preset: RunConfig, name: str, system: str, steps: int, wanted: Sequence[str]) -> dict[str, RunConfig]:
    """The wanted arms' configurations, but for the seed; `name` is the preset's."""
    preset = preset.change(tokenizer={"kind": system.removesuffix(STARTED)})

    def changed(config: RunConfig, length: int, **training: Any) -> RunConfig:
        values = {"steps": length, "warmup": min(config.training.warmup, length // 4), **training}
        if system.endswith(STARTED):
            values["exemplar_steps"] = length // 10
        return config.change(training=values)

    former, post = with_adam(preset, name), {"norm": "post"}
    arms = {
        "adam": changed(former.change(model=post), steps, precision="float32"),
        "adam-bf16": changed(former.change(model=post), steps),
        **{arm: changed(preset, steps // part) for arm, part in RECIPE.items()},
        "but-adam": changed(former, steps, learning_rate=4e-3, clip=1.0),
        "but-post": changed(preset.change(model=post), steps),
        **{arm: changed(preset, steps, **values) for arm, values in ABLATIONS.items()},
    }
    return {arm: arms[arm] for arm in wanted}


def speed_up(runs: Sequence[dict[str, Any]], mark: float | None) -> dict[str, float | None] | None:
    """adam's seconds, the recipe's to the same BPC, and their ratio, for one system and seed; None without both arms.

    The recipe's and the ratio are None where it does not come so far.
    """
    adam = next((run for run in runs if run["arm"] in ("adam", "adam-bf16")), None)
    recipe = [run for run in runs if run["arm"] in RECIPE]
    if adam is None or not recipe:
        return None
    mark = adam["bpc"] if mark is None else max(mark, adam["bpc"])
    taken = reached(sorted((run["cpu_seconds"], run["bpc"]) for run in recipe), mark)
    curves = [found for run in recipe if (found := reached(run["curve"], mark)) is not None]
    taken = min([*curves, *([] if taken is None else [taken])], default=None)
    spent = reached(adam["curve"], mark)
    assert spent is not None  # the mark is no better than its last score
    return {
        "bpc": mark,
        "adam_seconds": spent,
        "recipe_seconds": taken,
        "ratio": None if taken is None else spent / taken,
    }


def reached(points: Sequence[tuple[float, float]], mark: float) -> float | None:
    """Seconds to come to `mark` along points (seconds, BPC) in the order of their seconds, straight in between.

    The first point's seconds where it is better already; None where no point is.
    """
    before: tuple[float, float] | None = None
    for seconds, bpc in points:
        if bpc <= mark:
            if before is None:
                return seconds
            share = (before[1] - mark) / (before[1] - bpc)
            return before[0] + share * (seconds - before[0])
        before = (seconds, bpc)
    return None


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """BPC against processor seconds: a point for each run's end, the recipe's lengths of a seed joined, and each run's
    scores on the way to a mark."""
    figure = extra("matplotlib.figure", "speak-neuro[viz]").Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys("recipe" if run["arm"] in RECIPE else run["arm"] for run in runs))
    for index, name in enumerate(names):
        members = [run for run in runs if run["arm"] == name or (name == "recipe" and run["arm"] in RECIPE)]
        lines = [run["curve"] for run in members]
        if name == "recipe":
            for key in dict.fromkeys((run["system"], run["seed"]) for run in members):
                own = [run for run in members if (run["system"], run["seed"]) == key]
                lines.append(sorted((run["cpu_seconds"], run["bpc"]) for run in own))
        for line in lines:
            axes.plot(*zip(*line, strict=True), color=f"C{index}", linewidth=0.8)
        ends = [(run["cpu_seconds"], run["bpc"]) for run in members]
        axes.scatter(*zip(*ends, strict=True), s=20, color=f"C{index}", label=LABELS.get(name, name))
    axes.set_xlabel("processor seconds in training steps")
    axes.set_ylabel("test bits per character")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=150)
