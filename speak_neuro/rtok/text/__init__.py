"""Text as RTok reads it: normalised, cut into words, within limits."""
