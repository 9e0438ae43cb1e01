"""Configuration: frozen dataclasses whose fields carry help, range and choices; JSON and command-line flags from them.

One declaration serves validation, `config.json` and `--help`. A run's configuration is `RunConfig`, written whole into
its folder. The schema version goes up when a field changes its meaning; a reader refuses what it does not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from speak_neuro.common.registry import Registry
from speak_neuro.common.settings import option, validate
from speak_neuro.neuron.resets import RESETS

SCHEMA_VERSION = 2
"""2: config.json and the files beside it hold digests. Runs of schema 1 are read without."""


@dataclass(frozen=True)
class NeuronConfig:
    """The boundary neuron (paper Eq. 1, 9-11)."""

    reset_mode: str = option("gated", "what a spike does to the potential", choices=RESETS)
    decay: float = option(1.0, "gamma: share of the potential that survives a step", 0.0, 1.0)
    gain: float = option(1.0, "delta: factor on the input current", 0.0)
    threshold: float = option(1.0, "u_th: potential at which the neuron fires", 1e-3)
    reset_potential: float = option(0.0, "u_reset: potential after a hard reset")
    reset_scale: float = option(0.8, "theta: share of the threshold that a soft reset subtracts", 0.0, 1.0)
    surrogate_slope: float = option(4.0, "slope of the sigmoid surrogate gradient", 1e-3)
    detach_reset: bool = option(False, "no surrogate gradient through the reset")

    def __post_init__(self) -> None:
        validate(self)
        if self.threshold <= self.reset_potential:
            raise ValueError(f"threshold is {self.threshold}; allowed: above reset_potential {self.reset_potential}")


ENCODERS = Registry(
    "encoder",
    {
        "linear": "speak_neuro.tokenizer.linear:LinearEncoder",
        "window": "speak_neuro.tokenizer.window:WindowEncoder",
        "convolution": "speak_neuro.tokenizer.convolution:ConvolutionEncoder",
        "hourglass": "speak_neuro.tokenizer.hourglass:HourglassEncoder",
    },
)
"""What the neuron's current depends on; `speak_neuro.tokenizer.encoder` says what a new one has to be."""
SYSTEMS = Registry(
    "system",
    {
        "speak": "speak_neuro.tokenizer.module:SpeakTokenizer",
        "vanilla": "speak_neuro.systems.vanilla:Vanilla",
        "fixed": "speak_neuro.systems.fixed:FixedLength",
        "whitespace": "speak_neuro.systems.whitespace:WhiteSpace",
        "dtp-entropy": "speak_neuro.systems.dtp_entropy:DtpEntropy",
        "dtp-unigram": "speak_neuro.systems.dtp_unigram:DtpUnigram",
        "dtp-gumbel": "speak_neuro.systems.dtp_gumbel:DtpGumbel",
        "magnet": "speak_neuro.systems.magnet:Magnet",
        "hnet": "speak_neuro.systems.hnet:HNet",
    },
)
"""The tokenizers of the paper's Table 1, each in front of the same language model; `speak_neuro.systems.segmenter` says
what a new one has to be."""


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer, SPEAK's context encoder and readouts (Eq. 2, 7, 8), and the settings of the others."""

    kind: str = option("speak", "which system cuts the text", choices=SYSTEMS, added=True, flag="--tokenizer")
    encoder: str = option(
        "window",
        "what the neuron's current depends on",
        choices=ENCODERS,
    )
    encoder_width: int = option(128, "d: width of the encoder's features", 1, 65536)
    context: int = option(8, "k: characters the window and convolution encoders see, the present one included", 1, 256)
    tanh: bool = option(False, "tanh on the current (paper's RTok); cannot be exported exactly")
    grid: str = option(
        "none",
        "train on an integer grid, so that the fixed-point neuron is the trained one",
        choices=("none", "loihi2"),
        added=True,
    )
    unpooling: str = option(
        "read",
        "how tokens are read back: as they are, or mixed by how sure their ends are: L_LM then trains the neuron",
        choices=("read", "smooth"),
        added=True,
    )
    encoder_layers: int = option(1, "Linear-LayerNorm-GELU layers of the linear encoder", 1, 16, added=True)
    fixed_length: int = option(4, "characters per token", 1, added=True, systems=("fixed",))
    prior: float = option(
        0.2, "wanted share of boundaries", 1e-3, 0.999, added=True, systems=("dtp-gumbel", "magnet", "hnet")
    )
    script_priors: str = option(
        "", "a prior for each script, e.g. latin=0.2,cyrillic=0.1 (others: --prior)", added=True, systems=("magnet",)
    )
    predictor_temperature: float = option(
        0.5, "temperature of the relaxed sample", 1e-3, added=True, systems=("dtp-gumbel", "magnet")
    )
    double_sigmoid: bool = option(
        False, "sigmoid twice in the loss, as DTP's code has it", added=True, systems=("dtp-entropy", "dtp-unigram")
    )
    sample_at_evaluation: bool = option(
        False, "draw boundaries at evaluation too, as DTP's code does", added=True, systems=("dtp-gumbel", "magnet")
    )

    def __post_init__(self) -> None:
        validate(self)
        parse_priors(self.script_priors)


def parse_priors(text: str) -> dict[str, float]:
    """`script_priors` as a mapping from a script's name to its prior."""
    found: dict[str, float] = {}
    for part in text.split(",") if text else ():
        script, _, value = part.partition("=")
        try:
            prior = float(value)
        except ValueError:
            prior = math.nan
        if not script.isalpha() or not 0 < prior < 1:
            raise ValueError(f"script_priors is {text!r}; allowed: SCRIPT=PRIOR,..., each prior above 0 and below 1")
        found[script.lower()] = prior
    return found


@dataclass(frozen=True)
class ModelConfig:
    """The Hourglass language model (DTP)."""

    width: int = option(128, "d_model", 2, 32768)
    heads: int = option(4, "attention heads", 1, 1024)
    inner: int = option(512, "width inside the feed-forward block", 1, 131072)
    pre_layers: int = option(1, "full-resolution layers before pooling", 0, 256)
    shortened_layers: int = option(2, "layers on tokens; 0 for a plain transformer", 0, 256)
    post_layers: int = option(1, "full-resolution layers after pooling", 0, 256)
    dropout: float = option(0.0, "dropout in the model", 0.0, 0.9)
    attention_dropout: float = option(0.0, "dropout on attention probabilities", 0.0, 0.9)
    norm: str = option(
        "pre", "layer norms before a layer's parts, or after them as DTP has it", choices=("pre", "post"), before="post"
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.width % 2:
            raise ValueError(f"width is {self.width}; allowed: an even number (half sines, half cosines)")
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}; allowed: a multiple of heads, {self.heads}")


@dataclass(frozen=True)
class TrainingConfig:
    """Losses, proxy supervision and optimisation (paper section 3, appendix B, C)."""

    RETIRED: ClassVar[dict[str, Any]] = {
        "proxy": "exemplar",
        "proxy_rate": None,
        "boundary_gradient": False,
        "joint_encoder": False,
    }
    """Settings that were tried without gain and are gone (experiments/LOG.md), with the value that this version does;
    None: nothing read it then."""

    steps: int = option(1000, "optimiser steps", 1)
    batch: int = option(16, "windows per step", 1)
    window: int = option(256, "characters per window", 2)
    optimiser: str = option(
        "adam",
        "muon: for the matrices of the language model's layers, with Adam for the rest; adam: for all, as DTP",
        choices=("muon", "adam"),
        added=True,
    )
    learning_rate: float = option(1e-3, "peak learning rate of the language model; with muon, of what Adam trains", 0.0)
    matrix_learning_rate: float = option(0.02, "peak learning rate of muon's matrices", 0.0, added=True)
    tokenizer_learning_rate: float = option(1e-3, "peak learning rate of the tokenizer", 0.0)
    beta2: float = option(
        0.999, "Adam's average of squared gradients: what a step keeps of it", 0.0, 0.9999, added=True
    )
    warmup: int = option(50, "steps of linear warm-up before the schedule", 0)
    schedule: str = option(
        "cosine", "how the learning rates fall to zero after the warm-up", choices=("cosine", "linear"), added=True
    )
    cooldown: float = option(1.0, "schedule linear: share of its steps in which the rates fall", 1e-3, 1.0, added=True)
    clip: float = option(0.25, "gradient norm limit of the language model", 1e-6)
    tokenizer_clip: float = option(0.25, "gradient norm limit of the tokenizer", 1e-6)
    drive: str = option(
        "proxy",
        "what drives the neuron: proxy spikes that it imitates, or the information in the text (needs --target-sf)",
        choices=("proxy", "information"),
        added=True,
    )
    neuron_loss: str = option(
        "spike",
        "how it learns spikes: by their likelihood, which is calibrated, or by L_mem on the potential (Eq. 14); with "
        "the information drive membrane means the current alone",
        choices=("membrane", "spike"),
        before="membrane",
    )
    target_sf: float = option(
        0.0,
        "characters per token to hold; 0 for what comes out",
        0.0,
        added=True,
        systems=("speak", "dtp-entropy", "dtp-unigram", "dtp-gumbel", "magnet", "hnet"),
    )
    membrane_weight: float = option(1.0, "weight of the neuron's loss, L_mem (Eq. 14) or the chosen one", 0.0)
    reset_weight: float = option(1.0, "weight of L_reset (Eq. 12)", 0.0)
    rest_term: bool = option(True, "L_mem also at positions without a proxy spike")
    rest_weight: float = option(1.0, "weight of L_mem's terms without a proxy spike", 0.0, added=True)
    learn_mixes: bool = option(True, "learn L_mem's fire_mix (alpha) and rest_mix (beta)")
    fire_mix: float = option(1.0, "alpha at the start", 0.0, 2.0)
    rest_mix: float = option(0.5, "beta at the start", 0.0, 0.99)
    entropy: str = option("first", "a token's entropy from its characters'", choices=("first", "mean", "sum", "max"))
    entropy_share: float = option(0.2, "share of a batch's tokens that count as high-entropy", 0.0, 1.0)
    contextual: str = option(
        "entropy",
        "where the information drive opens contextual ranges: where the entropy is highest, or where it rises most",
        choices=("entropy", "rise"),
        added=True,
    )
    reset_loss_on: str = option("all", "positions L_reset is taken over", choices=("all", "spikes"))
    reset_positive_weight: float = option(1.0, "weight of L_reset's positive targets", 1e-6)
    acceptance: str = option(
        "metropolis",
        "rule that lets the neuron's spikes replace the proxy",
        choices=("metropolis", "literal", "greedy", "always", "never"),
    )
    temperature: float = option(1.0, "tau of the metropolis rule, in nats per window", 1e-6)
    acceptance_share: float = option(
        1.0, "share of the steps at which acceptance is decided; less is faster", 1e-3, 1.0, added=True
    )
    token_price: float = option(
        0.0, "nats that each token adds to its segmentation's loss in the acceptance: holds the rate", 0.0, added=True
    )
    proxy_steps: int = option(
        0, "first steps, in which the language model reads the proxy while the neuron learns it", 0, added=True
    )
    exemplar_steps: int = option(
        0, "first steps, trained as dtp-unigram; DTP's code has none", 0, added=True, systems=("dtp-gumbel", "magnet")
    )
    exemplar_vocabulary: int = option(5000, "pieces of the Unigram exemplar that starts the proxy", 50)
    rate_limit: float = option(0.0, "hinge on the spike rate's excess over this; 0 for none", 0.0, 1.0)
    evaluate_every: int = option(200, "steps between evaluations and checkpoints", 1)
    evaluate_characters: int = option(20000, "validation characters per evaluation", 64)
    test_characters: int = option(0, "characters of the test text that are scored; 0 for all", 0, added=True)
    seed: int = option(1111, "seed of everything random", 0)
    precision: str = option(
        "float32",
        "language model arithmetic; auto: bfloat16 where the device has it",
        choices=("auto", "float32", "bfloat16"),
    )
    compile: str = option(
        "no",
        "compile the language model's training passes; graphs: as CUDA graphs",
        choices=("no", "yes", "graphs"),
        added=True,
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class RunConfig:
    """All that defines a run."""

    neuron: NeuronConfig = field(default_factory=NeuronConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def change(self, **sections: dict[str, Any]) -> RunConfig:
        """With other settings: `config.change(training={"seed": 3}, model={"norm": "post"})`."""
        return replace(self, **{name: replace(getattr(self, name), **given) for name, given in sections.items()})

    @property
    def needs_exemplar(self) -> bool:
        """Whether the system starts from an exemplar tokenizer's boundaries, or learns them."""
        needs: bool = SYSTEMS.load(self.tokenizer.kind).needs_exemplar(self)
        return needs

    @property
    def is_speak(self) -> bool:
        """Whether SPEAK cuts the text; the others have no neuron."""
        return self.tokenizer.kind == "speak"

    def __post_init__(self) -> None:
        if self.tokenizer.grid == "none":
            return
        for name in ("decay", "gain"):
            if getattr(self.neuron, name) != 1:
                raise ValueError(
                    f"{name} is {getattr(self.neuron, name)}; allowed on the {self.tokenizer.grid} grid: 1.0, its "
                    "products are not on the grid"
                )
        if self.tokenizer.tanh:
            raise ValueError(f"tanh is True; allowed on the {self.tokenizer.grid} grid: False, tanh leaves the grid")
