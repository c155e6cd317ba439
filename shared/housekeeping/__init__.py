"""Keeping the data folder in order: what was left half-written, what is old enough to go, and who sees to it."""
