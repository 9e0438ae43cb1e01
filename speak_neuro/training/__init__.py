"""Training: steps, loop, evaluation, several processes, presets."""
