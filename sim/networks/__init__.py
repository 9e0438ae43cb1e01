"""Networks of neurons: planned, run in Lava, compared layer by layer. Loads neither torch nor Lava."""
