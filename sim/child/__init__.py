"""What runs inside the child interpreter, the only place that imports Lava."""
