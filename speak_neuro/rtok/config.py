"""Settings of an RTok run: the boundary neuron, the tokenizer's training, LoRA and the task's training."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from speak_neuro.common.settings import option, validate
from speak_neuro.config import NeuronConfig, TrainingConfig


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adaptation of query and value."""

    lora_rank: int = option(128, "r: rank of the added matrices", 1)
    lora_alpha: int = option(256, "the added product is scaled by alpha / r", 1)
    lora_dropout: float = option(0.3, "dropout on LoRA's input", 0.0, 0.9)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class TaskTraining:
    """Optimisation of LoRA and classifier."""

    epochs: int = option(15, "passes over the training split", 1)
    batch: int = option(32, "examples per step", 1)
    length_window: int = option(1, "batches whose examples are sorted by length; more is faster, 1 is random", 1)
    learning_rate: float = option(1e-4, "AdamW's rate at the start, falling linearly to 0", 0.0)
    head_learning_rate: float = option(0.0, "the classifier's rate at the start; 0 for the same", 0.0)
    weight_decay: float = option(0.0, "AdamW's weight decay", 0.0)
    clip: float = option(1.0, "gradient norm limit", 1e-6)
    longest: int = option(128, "tokens of a sequence, special tokens included", 8)
    precision: str = option("float32", "the encoder's arithmetic", choices=("float32", "bfloat16"))
    train_limit: int = option(0, "use only so many training examples; 0 for all", 0)
    evaluate_limit: int = option(0, "use only so many examples of each evaluated split; 0 for all", 0)
    seed: int = option(42, "seed of everything random", 0)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class SpeakTraining:
    """The tokenizer's training (Eq. 12-16); only for --tokenizer speak."""

    encoder: str = option(
        "linear",
        "what the neuron's current depends on: one character, or several",
        choices=("linear", "window", "convolution"),
        added=True,
    )
    context: int = option(
        1, "k: characters the window and convolution encoders see, those ahead included", 1, 256, added=True
    )
    look_ahead: int = option(
        0, "characters read after the one that is decided, a fixed delay (at most --context - 1)", 0, 4, added=True
    )
    neuron_loss: str = option(
        "membrane",
        "how the neuron learns spikes: by their likelihood, or by L_mem on the potential (Eq. 14)",
        choices=("spike", "membrane"),
        added=True,
    )
    target_length: float = option(
        0.0,
        "a sentence's tokens to hold, special ones included, as a share of XLM-R's; 0 for what comes out",
        0.0,
        4.0,
        added=True,
    )
    join_signs: bool = option(
        False, "as proxy, a word sign that XLM-R makes a piece of its own is joined with what follows", added=True
    )
    encoder_width: int = option(128, "d: width of the character embedding", 1)
    tanh: bool = option(True, "tanh on the current")
    tokenizer_learning_rate: float = option(1e-3, "AdamW's rate of the tokenizer", 0.0)
    tokenizer_clip: float = option(1.0, "gradient norm limit of the tokenizer", 1e-6)
    tokenizer_warmup_epochs: int = option(1, "passes that only mimic the pieces, before the task", 0)
    membrane_weight: float = option(1.0, "weight of L_mem (Eq. 14)", 0.0)
    reset_weight: float = option(1.0, "weight of L_reset (Eq. 12)", 0.0)
    rest_term: bool = option(True, "L_mem also at positions without a proxy spike")
    rest_weight: float = option(1.0, "weight of L_mem's terms without a proxy spike; below 1 for more tokens", 0.0)
    fire_mix: float = option(1.2, "alpha of Eq. 14", 0.0, 2.0)
    rest_mix: float = option(0.6, "beta of Eq. 14", 0.0, 0.99)
    entropy: str = option(
        "auto",
        "what a token's entropy is of; auto: the encoder's masked-language head if it has one, else the classifier",
        choices=("auto", "task_head", "mlm_onepass"),
    )
    entropy_share: float = option(0.2, "share of a batch's tokens that count as high-entropy", 0.0, 1.0)
    reset_positive_weight: float = option(1.0, "weight of L_reset's positive targets", 1e-6)
    acceptance: str = option(
        "metropolis",
        "rule that lets the neuron's spikes replace the proxy",
        choices=("metropolis", "literal", "greedy", "always", "never"),
    )
    temperature: float = option(1.0, "tau of the metropolis rule, in nats per example", 1e-6)

    def __post_init__(self) -> None:
        validate(self)
        most = 0 if self.encoder == "linear" else self.context - 1
        if self.look_ahead > most:
            why = "which reads one character" if self.encoder == "linear" else f"which sees {self.context}"
            raise ValueError(
                f"look_ahead is {self.look_ahead}; allowed with the {self.encoder} encoder, {why}: 0 to {most}"
            )
        if self.target_length and (self.neuron_loss != "spike" or self.tanh):
            raise ValueError(
                f"target_length is {self.target_length}; allowed: 0 with L_mem, which has no price of a spike, and "
                "with tanh, which bounds the current"
            )

    def shared(self) -> TrainingConfig:
        """The settings that training in general has too, alpha and beta constant."""
        names = {item.name for item in fields(TrainingConfig)} - {"entropy"}  # of which this one says another thing
        return TrainingConfig(learn_mixes=False, **{name: value for name, value in vars(self).items() if name in names})


@dataclass(frozen=True)
class RTokConfig:
    """All that defines a run beside task, tokenizer, data and models."""

    neuron: NeuronConfig = field(default_factory=NeuronConfig)
    speak: SpeakTraining = field(default_factory=SpeakTraining)
    lora: LoraSettings = field(default_factory=LoraSettings)
    training: TaskTraining = field(default_factory=TaskTraining)


DEFAULTS = {
    "uner": RTokConfig(lora=LoraSettings(256, 512, 0.3), training=TaskTraining(epochs=20, learning_rate=1e-4)),
    "xnli": RTokConfig(lora=LoraSettings(128, 256, 0.3), training=TaskTraining(epochs=15, learning_rate=1e-4)),
}
"""DyTok's settings for tokens that change (its Table 7), which the paper follows, and the paper's tokenizer."""


def ahead(config: RTokConfig) -> RTokConfig:
    """A tokenizer that finds more of XLM-R's cuts: a window, four characters ahead, learned by the likelihood."""
    speak = replace(config.speak, encoder="window", context=12, look_ahead=4, neuron_loss="spike", tanh=False)
    return replace(config, neuron=replace(config.neuron, decay=0.25), speak=speak)
