"""Training modules to NIR graphs and back, and the record of their runs. Loads torch."""
