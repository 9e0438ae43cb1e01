"""NIR graph and trace to a Lava simulation and a parity report. Importing this package loads neither torch nor Lava."""
