"""The same in integers: formats, levels, comparison."""
