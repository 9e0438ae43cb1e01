"""Named configurations of speak-train. Flags given on the command line override them."""

from __future__ import annotations

import dataclasses

from speak_neuro.config import ModelConfig, NeuronConfig, RunConfig, TokenizerConfig, TrainingConfig

# How every preset trains its language model; what was tried is in experiments/LOG.md, 2026-11-28.
RECIPE = TrainingConfig(
    optimiser="muon",
    matrix_learning_rate=0.02,
    learning_rate=8e-3,
    beta2=0.95,
    schedule="linear",
    clip=1.0,
    precision="auto",
)

# A few minutes on two cores: every mechanism alive, no claim to quality.
SMOKE = RunConfig(
    neuron=NeuronConfig(),
    tokenizer=TokenizerConfig(encoder="convolution", context=6),  # folds into tables; experiments/LOG.md
    model=ModelConfig(width=128, heads=4, inner=512, pre_layers=1, shortened_layers=2, post_layers=1),
    training=dataclasses.replace(
        RECIPE,
        steps=600,
        batch=16,
        window=256,
        tokenizer_learning_rate=5e-4,
        reset_positive_weight=2.0,
        evaluate_every=200,
    ),
)

# A quarter of an hour or less on two cores.
SMALL = RunConfig(
    tokenizer=TokenizerConfig(encoder="window", encoder_width=192, context=8),
    model=ModelConfig(width=192, heads=6, inner=768, pre_layers=1, shortened_layers=3, post_layers=1),
    training=dataclasses.replace(
        RECIPE,
        steps=1500,
        batch=16,
        window=256,
        tokenizer_learning_rate=5e-4,
        warmup=100,
        reset_positive_weight=2.0,
        evaluate_every=250,
        evaluate_characters=20000,
    ),
)

# Preset smoke without exemplar and white space: a neuron that holds some nats of text a token, four characters of it.
INFORMATION = dataclasses.replace(
    SMOKE,
    neuron=NeuronConfig(reset_scale=1.0),
    training=dataclasses.replace(
        SMOKE.training, drive="information", target_sf=4.0, entropy_share=0.667, contextual="rise"
    ),
)

# The comparison of all systems: most layers work on tokens, so that the segmentation shows. About 3 seconds a step on
# two cores; 16 runs of it share one data-centre GPU.
COMPARE = RunConfig(
    # A leak: without it the potential carries every earlier character's current to the next decision, and boundaries
    # jitter (experiments/LOG.md, 2026-11-26).
    neuron=NeuronConfig(decay=0.25),
    tokenizer=TokenizerConfig(encoder="window", encoder_width=256, context=12),
    model=ModelConfig(width=256, heads=4, inner=1024, pre_layers=1, shortened_layers=6, post_layers=1),
    training=dataclasses.replace(
        RECIPE,
        steps=3000,
        batch=32,
        window=512,
        tokenizer_learning_rate=5e-4,
        warmup=200,
        reset_positive_weight=2.0,
        temperature=2.0,
        proxy_steps=300,
        evaluate_every=250,
        evaluate_characters=100_000,
    ),
)

# The same at a size of which two cores train a run in a quarter of an hour.
COMPARE_CPU = COMPARE.change(
    model={"width": 128, "inner": 512, "shortened_layers": 4},
    training={
        "steps": 2000,
        "batch": 16,
        "window": 256,
        "warmup": 100,
        "temperature": 1.0,
        "proxy_steps": 0,  # a quiet start costs more than it gives where there is so little time to leave it
        "evaluate_every": 200,
        "evaluate_characters": 20_000,
    },
)

# Dynamic token pooling's Hourglass of Table 1.
DTP = ModelConfig(
    width=512,
    heads=8,
    inner=2048,
    pre_layers=2,
    shortened_layers=8,
    post_layers=2,
    dropout=0.1,
    attention_dropout=0.1,
)

# One GPU, an hour or so.
GPU = RunConfig(
    tokenizer=TokenizerConfig(encoder="hourglass"),
    model=dataclasses.replace(DTP, shortened_layers=4),
    training=dataclasses.replace(
        RECIPE,
        steps=20000,
        batch=32,
        window=1024,
        tokenizer_learning_rate=5e-4,
        warmup=1000,
        temperature=4.0,
        acceptance_share=0.2,  # with dropout a decision takes a pass of its own, a third of a step
        evaluate_every=1000,
        evaluate_characters=200000,
    ),
)

# The paper's Table 1 (DTP's model and schedule): 200,000 steps of 8 x 2048 characters.
PAPER = RunConfig(
    tokenizer=TokenizerConfig(encoder="hourglass"),
    model=DTP,
    training=dataclasses.replace(
        RECIPE,
        steps=200_000,
        batch=8,
        window=2048,
        tokenizer_learning_rate=2.5e-4,
        warmup=4000,
        temperature=8.0,
        acceptance_share=0.2,
        evaluate_every=2000,
        evaluate_characters=500_000,
    ),
)

PRESETS = {
    "smoke": SMOKE,
    "information": INFORMATION,
    "small": SMALL,
    "compare": COMPARE,
    "compare-cpu": COMPARE_CPU,
    "gpu": GPU,
    "paper": PAPER,
}
ADAM_RATES = {**dict.fromkeys(PRESETS, 1e-3), "gpu": 5e-4, "paper": 2.5e-4}


def with_adam(config: RunConfig, preset: str) -> RunConfig:
    """`config` trained by DTP's optimiser: one Adam for all, at the preset's rate for it."""
    rate = ADAM_RATES[preset]
    adam = {"optimiser": "adam", "learning_rate": rate, "beta2": 0.999, "schedule": "cosine", "cooldown": 1.0}
    return config.change(training={**adam, "clip": 0.25})


DTP_TEST_CHARACTERS = 500 * 16 * 512
"""DTP's evaluation stops after 500 batches of 16 windows of 512 scored characters, in the final test too."""


def faithful(config: RunConfig, preset: str) -> RunConfig:
    """The letter of the paper where it trains at all (docs/equations.md lists the rest), and for the systems it is
    compared with what their published code does (docs/systems.md)."""
    config = with_adam(config, preset).change(model={"norm": "post"})
    if not config.is_speak:
        return config.change(
            tokenizer={"double_sigmoid": True, "sample_at_evaluation": True},
            training={"test_characters": DTP_TEST_CHARACTERS},
        )
    return config.change(
        neuron={"reset_mode": "gated", "decay": 1.0, "gain": 1.0, "reset_scale": 0.8},
        training={
            "drive": "proxy",
            "target_sf": 0.0,
            "entropy_share": 0.2,
            "neuron_loss": "membrane",
            "acceptance": "literal",
            "acceptance_share": 1.0,
            "learn_mixes": True,
            "rest_term": True,
            "reset_loss_on": "all",
            "reset_positive_weight": 1.0,
            "rate_limit": 0.0,
            "token_price": 0.0,
            "proxy_steps": 0,
            "exemplar_steps": 0,
        },
    )
