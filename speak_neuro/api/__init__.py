"""What users import: one tokenizer for every trained run, and its form for transformers."""
