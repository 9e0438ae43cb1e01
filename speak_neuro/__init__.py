"""SPEAK, the entropy-gated spiking tokenizer: trained with a language model, exported through NIR, verified in Lava."""

__version__ = "0.1.0"
