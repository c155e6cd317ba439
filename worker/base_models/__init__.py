"""Base models: loading them by name or path, and the format in which each is spoken to."""
