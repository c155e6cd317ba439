"""Rows of work: progress, events, cancel, pause and resume."""
