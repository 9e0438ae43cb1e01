"""The Hourglass language model."""
