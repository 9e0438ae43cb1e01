"""A Lava process that records what arrives."""
