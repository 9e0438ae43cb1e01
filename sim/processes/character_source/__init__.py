"""A Lava process that plays text into a network, one spike per character."""
