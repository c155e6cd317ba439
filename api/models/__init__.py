"""The base models that this installation allows."""
