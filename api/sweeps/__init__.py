"""Sweeps: searches for the best configuration, created here and run by their own worker."""
