"""A Lava process that plays an array into a network."""
