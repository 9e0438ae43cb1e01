"""Checkpoint to NIR graph and trace. Importing this package loads neither torch nor nir."""
