"""Boundaries of a text by a trained system, and the user's API."""
