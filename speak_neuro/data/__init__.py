"""The embedded text; see SOURCES.md beside it."""
