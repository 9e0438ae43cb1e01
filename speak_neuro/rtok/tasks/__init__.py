"""Named entities and inference: data, labels, scores."""
