"""A Lava process that turns characters into currents and gate logits by table, with delays."""
