"""A trained tokenizer as tables over characters, and its token ids. Needs no torch."""
