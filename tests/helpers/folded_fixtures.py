"""Small untrained tokenizers that spike, in memory and as run folders, for tests of the folded graphs."""

from __future__ import annotations

from pathlib import Path

import torch

from speak_neuro.config import ModelConfig, NeuronConfig, RunConfig, TokenizerConfig
from speak_neuro.corpus.reader import embedded_names, embedded_text
from speak_neuro.systems.run_folder import save_model, write_config
from speak_neuro.systems.system import System
from speak_neuro.text.alphabet import Alphabet


def scripts(characters: int = 1500) -> dict[str, str]:
    """The beginning of every embedded text, by name: Latin, Arabic, Hebrew, Devanagari, Kana, Cyrillic, Thai, Han."""
    return {name: embedded_text(name)[:characters] for name in embedded_names()}


def lively_system(
    encoder: str, vocabulary: int, context: int = 1, tanh: bool = False, grid: str = "none", **neuron: object
) -> System:
    """An untrained system whose neuron fires at about every third character, with both gates."""
    torch.manual_seed(7)
    config = config_of(encoder, context, tanh, grid, **neuron)
    system = System(config, vocabulary).eval()
    with torch.no_grad():
        if encoder == "convolution":
            system.tokenizer.encoder.sixteenths.normal_(0.0, 0.5 / 16)
            system.tokenizer.encoder.sixteenths[0, :, 0] += 0.35 / 16
        else:
            system.tokenizer.current_readout.weight.mul_(3)
            system.tokenizer.gate_readout.weight.mul_(3)
            if not system.tokenizer.needs_hidden and not tanh:
                mean = system.tokenizer.inputs(torch.arange(vocabulary)[:, None]).current.mean() / system.tokenizer.unit
                system.tokenizer.current_readout.bias.add_(0.35 - mean)
    return system


def config_of(encoder: str, context: int = 1, tanh: bool = False, grid: str = "none", **neuron: object) -> RunConfig:
    return RunConfig(
        neuron=NeuronConfig(**neuron),  # type: ignore[arg-type]
        tokenizer=TokenizerConfig(encoder=encoder, encoder_width=16, context=context, tanh=tanh, grid=grid),
        model=ModelConfig(width=16, heads=2, inner=32, pre_layers=1, shortened_layers=1, post_layers=1),
    )


def run_folder(
    folder: Path,
    encoder: str,
    alphabet: Alphabet,
    context: int = 1,
    tanh: bool = False,
    grid: str = "none",
    **neuron: object,
) -> Path:
    """A run folder holding `lively_system`."""
    folder.mkdir(parents=True)
    write_config(folder, config_of(encoder, context, tanh, grid, **neuron), alphabet, {"data": {}})
    save_model(folder, lively_system(encoder, len(alphabet), context, tanh, grid, **neuron))
    return folder
