"""The real stack, every process of it, over HTTP alone."""
