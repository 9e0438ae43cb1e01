"""The tokenizers in front of the encoder: SPEAK and those it is compared with."""
