"""Other frameworks reading our graphs: what each needs to run them exactly. Each module needs its framework."""
