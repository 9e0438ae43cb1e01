"""A layer of neurons, or of leaky integrators, over a batch, as a Lava process."""
