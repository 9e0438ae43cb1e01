"""Other forms of a graph, and what they cost. Needs no torch."""
