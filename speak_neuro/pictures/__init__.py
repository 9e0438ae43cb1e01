"""Pictures of tokens: for terminals, notebooks, browsers and papers."""
