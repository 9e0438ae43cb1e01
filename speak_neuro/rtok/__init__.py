"""SPEAK for a pre-trained encoder (the paper's RTok experiments): segments of any tokenizer get embeddings from a
hypernetwork, and the encoder is tuned with LoRA. Needs the extra `hf`.
"""
