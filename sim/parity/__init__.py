"""The trained run against Lava's, in floating point."""
