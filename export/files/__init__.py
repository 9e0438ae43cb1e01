"""The files that cross to the simulator: graph, trace, folded tokenizer. Needs no torch."""
