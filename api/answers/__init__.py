"""Questions to the inference workers, and their answers."""
