"""Lava processes and their models, and nothing else: Lava executes every file of this folder when it compiles."""
