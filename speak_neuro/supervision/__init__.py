"""What the tokenizer learns from: exemplar, proxy spikes, acceptance, entropy, losses."""
