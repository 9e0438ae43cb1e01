"""The runs of each suite of suites.py: their flags, seeds, steps, and the mixtures that some branch from."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speak_neuro.errors import SpeakError

SUITES = (
    "main",
    "frontier",
    "ablations",
    "languages",
    "cpu",
    "branch",
    "branch-long",
    "branch-words",
    "branch-languages",
)
SEEDS = (1, 2, 3)
LANGUAGES = ("en", "fi", "he", "vi")
PARTS = ("train.txt", "valid.txt", "test.txt")


def plain(*systems: str) -> dict[str, str]:
    """Systems without flags of their own."""
    return {system: f"--tokenizer {system}" for system in systems}


MAIN = {
    **plain("vanilla", "fixed", "whitespace", "dtp-entropy", "dtp-unigram", "dtp-gumbel", "hnet"),
    # The rate that the paper's Table 1 implies for MAGNET on text8.
    **{f"magnet-{seed}": f"--tokenizer magnet --prior 0.217 --seed {seed}" for seed in SEEDS},
    # The same with the start that SPEAK has: without it, at this length, the language model learns to do without tokens
    # (experiments/LOG.md, 2026-11-26).
    **{
        f"magnet-started-{seed}": f"--tokenizer magnet --prior 0.217 --seed {seed} --exemplar-steps 300"
        for seed in SEEDS
    },
    "dtp-gumbel-started": "--tokenizer dtp-gumbel --exemplar-steps 300",
    **{f"speak-{seed}": f"--seed {seed}" for seed in SEEDS},
}
FRONTIER = {
    "fixed-6": "--tokenizer fixed --fixed-length 6",
    "dtp-unigram-1000": "--tokenizer dtp-unigram --exemplar-vocabulary 1000",
    "magnet-0.15": "--tokenizer magnet --prior 0.15",
    "magnet-0.3": "--tokenizer magnet --prior 0.3",
    "speak-500": "--exemplar-vocabulary 500",
    "speak-1000": "--exemplar-vocabulary 1000",
}
# Around the paper's neuron, which has no leak.
ABLATIONS = {
    "gated": "",
    "hard": "--reset-mode hard",
    "soft": "--reset-mode soft",
    "none": "--reset-mode none",
    "hard-none": "--reset-mode hard/none",
    "theta-1": "--reset-scale 1.0",
    "theta-0.5": "--reset-scale 0.5",
    "literal": "--acceptance literal",
    "greedy": "--acceptance greedy",
    "never": "--acceptance never",
    "no-rest-term": "--no-rest-term",
    "no-proxy-steps": "--proxy-steps 0",
    "leak": "--decay 0.25",
    "linear": "--encoder linear",
    "hourglass": "--encoder hourglass",
    "entropy-mean": "--entropy mean",
}
CPU = {
    **{
        name: flags
        for seed in SEEDS
        for name, flags in (
            (f"magnet-started-{seed}", f"--tokenizer magnet --prior 0.217 --exemplar-steps 200 --seed {seed}"),
            (f"speak-{seed}", f"--seed {seed}"),
        )
    },
    **plain("whitespace", "dtp-unigram", "dtp-entropy"),
    "dtp-gumbel-started": "--tokenizer dtp-gumbel --exemplar-steps 200",
    **plain("vanilla", "fixed"),
    "magnet": "--tokenizer magnet --prior 0.217",
    "speak-hourglass": "--encoder hourglass",
    "speak-entropy-mean": "--entropy mean",
}
LANGUAGE_SYSTEMS = {
    "vanilla": "--tokenizer vanilla",
    "dtp-unigram": "--tokenizer dtp-unigram",
    "magnet": "--tokenizer magnet --prior {prior}",
    "speak": "",
}
# 1 / SF of MAGNET in the paper's Table 1.
PRIORS = {"en": 0.213, "fi": 0.385, "he": 0.227, "vi": 0.233}

# One share of the common training for each family; exemplars of 1,000 pieces have about the target's tokens themselves.
# SPEAK reads the pre-layers, as the others that learn do: none has more to go by.
INFORMATION = (
    "--drive information --decay 1 --reset-scale 1 --entropy-share 0.667 --contextual rise --encoder hourglass"
)
FAMILIES = {
    **plain("whitespace", "dtp-unigram", "dtp-entropy"),
    "magnet-started": "--tokenizer magnet --exemplar-steps 300",
    **plain("hnet", "fixed"),
    "speak": INFORMATION,
}
BRANCHES = {
    **{name: (name, flags.partition(" --exemplar-steps")[0]) for name, flags in FAMILIES.items()},
    "speak-hard": ("speak", f"{INFORMATION} --reset-mode hard"),
    "speak-soft": ("speak", f"{INFORMATION} --reset-mode soft"),
    "speak-smooth": ("speak", f"{INFORMATION} --unpooling smooth"),
}
BRANCH_FLAGS = "--target-sf 4 --exemplar-vocabulary 1000 --test-characters 150000 --tokenizer-learning-rate 0.002"
LANGUAGE_FLAGS = "--tokenizer-learning-rate 0.002"
LANGUAGE_BRANCHES = {
    # Characters per token; pieces of the exemplar, so that about as many are its own.
    "fi": "--target-sf 4 --exemplar-vocabulary 1000",
    "he": "--target-sf 4 --exemplar-vocabulary 2000",
    "vi": "--target-sf 4 --exemplar-vocabulary 1000",
    "zh": "--target-sf 2 --exemplar-vocabulary 5000 --fixed-length 2",
}
ENGLISH_NAMES = tuple(name for name in BRANCHES if name != "fixed")
LONG_NAMES = ("dtp-unigram", "dtp-entropy", "magnet-started", "hnet", "speak")
WORD_FLAGS = BRANCH_FLAGS.replace("--target-sf 4", "--target-sf 5.9")
WORD_NAMES = ("whitespace", "dtp-unigram", "speak")
LANGUAGE_NAMES = ("dtp-unigram", "fixed", "speak", "speak-smooth")
OWN_FLAGS = "--learning-rate 0.0024 --matrix-learning-rate 0.006 --tokenizer-learning-rate 0.0006 --warmup 30"
"""A branch begins where the common rates came to zero: at the full rates it would first unlearn what it was given."""
LONG_FLAGS = "--learning-rate 0.0048 --matrix-learning-rate 0.012 --tokenizer-learning-rate 0.0012 --warmup 30"
BRANCH_STEPS, LANGUAGE_STEPS = 250, 150
COMMON = 3
"""The common training has three times a branch's steps; `branch-long` goes on from that of `branch` for two times."""


@dataclass(frozen=True)
class Run:
    """One run."""

    folder: Path
    data: Path
    flags: tuple[str, ...]
    preset: str = "compare"
    after: Path | None = None
    """The mixture that has to be there first; its member of the run's system gives the weights."""
    common: str = ""
    """Settings of the mixture's members."""

    @property
    def vocabulary(self) -> str:
        """Pieces of its exemplar; empty where it has none."""
        system = self.flags[self.flags.index("--tokenizer") + 1] if "--tokenizer" in self.flags else "speak"
        if system not in ("speak", "dtp-unigram") and "--exemplar-steps" not in self.flags:
            return ""
        name = "--exemplar-vocabulary"
        return self.flags[self.flags.index(name) + 1] if name in self.flags else "5000"


def runs_of(suite: str, data: Path, out: Path, steps: int | None) -> list[Run]:
    """The runs of a suite."""

    def run(name: str, flags: str, where: Path, default_steps: int, preset: str = "compare") -> Run:
        seed = "" if "--seed" in flags else " --seed 1"
        text = f"--steps {steps or default_steps} {flags}{seed}"
        return Run(out / suite / name, where, tuple(shlex.split(text)), preset)

    short = steps or BRANCH_STEPS
    english = {
        "branch": ("mixture", BRANCH_FLAGS, short, ENGLISH_NAMES, OWN_FLAGS),
        "branch-long": ("mixture", BRANCH_FLAGS, 2 * short, LONG_NAMES, LONG_FLAGS),
        "branch-words": ("mixture-words", WORD_FLAGS, short, WORD_NAMES, OWN_FLAGS),
    }
    if suite in english:
        mixture, flags, own_steps, names, rates = english[suite]
        places = out / suite, data, out / mixture
        return [
            one
            for seed in SEEDS
            for one in branches(*places, f"{flags} --seed {seed}", COMMON * short, own_steps, names, rates)
        ]
    if suite == "branch-languages":
        short = steps or LANGUAGE_STEPS
        return [
            one
            for seed in SEEDS
            for language, own in LANGUAGE_BRANCHES.items()
            for one in branches(
                out / suite / language,
                data / language,
                out / "mixture-languages" / language,
                f"{own} {LANGUAGE_FLAGS} --seed {seed}",
                COMMON * short,
                short,
                LANGUAGE_NAMES,
                OWN_FLAGS,
            )
        ]
    if suite == "languages":
        found = []
        for language in LANGUAGES:
            if not (data / language / "train.txt").is_file():
                raise SpeakError(
                    f"{data}: holds no {language}/train.txt; make it with python experiments/corpora/make.py"
                )
            for name, flags in LANGUAGE_SYSTEMS.items():
                # Few steps: a megabyte is read about five times.
                text = flags.format(prior=PRIORS[language]) + " --warmup 50 --proxy-steps 50 --evaluate-every 50"
                found.append(run(f"{language}-{name}", text, data / language, 400))
        return found
    if suite == "cpu":
        return [run(name, flags, data, 2000, "compare-cpu") for name, flags in CPU.items()]
    if suite == "ablations":
        return [run(name, f"--decay 1 {flags}", data, 1500) for name, flags in ABLATIONS.items()]
    return [run(name, flags, data, 3000) for name, flags in {"main": MAIN, "frontier": FRONTIER}[suite].items()]


def branches(
    out: Path, data: Path, mixtures: Path, flags: str, common: int, steps: int, names: Sequence[str], rates: str
) -> list[Run]:
    """The branches `names` of one mixture, in folders NAME-SEED; `flags` end with the seed."""
    seed = flags.rpartition(" ")[2]
    return [
        Run(
            out / f"{name}-{seed}",
            data,
            tuple(shlex.split(f"--steps {steps} {flags} {rates} {own}")),
            "compare-cpu",
            mixtures / seed / member,
            f"--steps {common} {flags}",
        )
        for name, (member, own) in BRANCHES.items()
        if name in names
    ]
