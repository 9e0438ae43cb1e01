"""Fine-tuning, alone or together with the tokenizer."""
