"""A linear layer over a batch, as a Lava process that holds its result for one step."""
