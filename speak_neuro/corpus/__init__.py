"""Training text: read, cut into parts and windows, kept in files larger than memory."""
