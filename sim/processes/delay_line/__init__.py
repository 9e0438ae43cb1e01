"""A Lava process that hands on what it got some steps before."""
