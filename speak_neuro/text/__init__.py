"""Characters, ids, spikes as spans, lines."""
