"""Pre-trained encoders, their pieces, embeddings for new tokens."""
