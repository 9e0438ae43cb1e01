"""The gated-reset neuron as a Lava process."""
