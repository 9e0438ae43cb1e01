"""What training costs in arithmetic: floating-point operations (FLOPs) estimated from sizes and the shortening factor.

A layer of width D and inner width F on n positions (characters or tokens), R rows sharing the distances' projection:

    layer(n) = n (8 D^2 + 4 D F)  +  6 D pairs(n)  +  2 D^2 (n + 1) / R          pairs(n) = n (n + 1) / 2
               projections, MLP      attention        distances

    forward  = L characters:  layer(L) in each pre- and post-layer,  layer(1 + L / SF) in each shortened layer,
               2 D V L for the output                                 (vanilla: layer(L) everywhere)
    step     = B (3 forward + 3 * 2 L P_tokenizer) + B decide         a backward pass costs two forward passes
    decide   = SPEAK's second look at each window, when proxies are accepted: the layers after pooling once more under
               the proxy; with dropout, where training's pass cannot serve, all before pooling once and after it twice

A multiplication and an addition are two operations. Only the pairs that a causal model needs are counted, and what is
no matrix product is left out. Each tokenizer parameter counts as used once per character, which is too much for an
embedding's, and each window as judged on its own proxy, which is too much where both segmentations are the same. The
model's forward pass is exact: the tests compare it with torch's own count.
"""

from __future__ import annotations

from collections.abc import Sequence

from speak_neuro.config import SYSTEMS, ModelConfig, RunConfig


def layer_flops(positions: float, width: int, inner: int, rows: int = 1, square: bool = False) -> float:
    """One layer's forward pass over one row; `square`: with all pairs of positions, as a backend without blocks."""
    pairs = positions * (positions + 1 / 3) if square else positions * (positions + 1) / 2
    projections = positions * (8 * width**2 + 4 * width * inner)
    return projections + 6 * width * pairs + 2 * width**2 * (positions + 1) / rows


def forward_flops(
    model: ModelConfig,
    vocabulary: int,
    window: int,
    shortening_factor: float,
    *,
    rows: int = 1,
    shortened: bool = True,
    square: bool = False,
) -> tuple[float, float]:
    """One row's forward pass: (before pooling, after it). Not `shortened`: every layer on characters, as in vanilla."""
    if shortening_factor < 1:
        raise ValueError(f"shortening_factor is {shortening_factor}; allowed: at least 1")
    positions = 1 + window / shortening_factor if shortened else window

    def stack(layers: int, length: float) -> float:
        return layers * layer_flops(length, model.width, model.inner, rows, square)

    before = stack(model.pre_layers, window)
    after = stack(model.shortened_layers, positions) + stack(model.post_layers, window)
    return before, after + 2 * model.width * vocabulary * window


def character_flops(config: RunConfig, vocabulary: int, parameters_tokenizer: int, shortening_factor: float) -> float:
    """Reading one character of a window, averaged over it: the model at this SF, and what cuts the text."""
    before, after = forward_flops(
        config.model,
        vocabulary,
        config.training.window,
        shortening_factor,
        shortened=SYSTEMS.load(config.tokenizer.kind).shortens,
    )
    return (before + after) / config.training.window + 2.0 * parameters_tokenizer


def step_flops(
    config: RunConfig,
    vocabulary: int,
    parameters_tokenizer: int,
    shortening_factor: float,
    decided: float | None = None,
) -> float:
    """One training step of the whole batch; `decided`: the share of the steps at which SPEAK decides on its proxies,
    where it has any (default: `acceptance_share`)."""
    training = config.training
    before, after = forward_flops(
        config.model,
        vocabulary,
        training.window,
        shortening_factor,
        rows=training.batch,
        shortened=SYSTEMS.load(config.tokenizer.kind).shortens,
    )
    tokenizer = 2.0 * training.window * parameters_tokenizer
    row = 3 * (before + after + tokenizer)
    if config.is_speak and training.drive == "proxy":
        dropout = config.model.dropout > 0 or config.model.attention_dropout > 0
        share = training.acceptance_share if decided is None else decided
        row += share * (before + 2 * after if dropout else after)
    return training.batch * row


def cumulative_flops(
    config: RunConfig,
    vocabulary: int,
    parameters_tokenizer: int,
    steps: Sequence[int],
    shortening_factors: Sequence[float],
    decided: Sequence[float] | None = None,
) -> list[float]:
    """FLOPs of training up to each of `steps`, with the shortening factor that the steps before it had.

    `decided` is the share of these steps at which SPEAK decided on proxies. Where it is not known, the first
    `proxy_steps`, in which the language model reads the proxy, count as without decision, and the others, too dearly
    in the first pass over the text, as with one.
    """
    for name, values in (("shortening factors", shortening_factors), ("shares of decisions", decided)):
        if values is not None and len(steps) != len(values):
            raise ValueError(f"{len(steps)} steps, {len(values)} {name}; allowed: as many of both")
    total, done, out = 0.0, 0, []
    for index, (step, factor) in enumerate(zip(steps, shortening_factors, strict=True)):
        given = min(max(config.training.proxy_steps - done, 0), step - done)
        parts = [(given, 0.0), (step - done - given, None)] if decided is None else [(step - done, decided[index])]
        for count, share in parts:
            total += count * step_flops(config, vocabulary, parameters_tokenizer, max(factor, 1.0), share)
        done = step
        out.append(total)
    return out
