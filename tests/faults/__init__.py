"""Faults, injected into the real processes: each goal is one command, `python -m tests.faults GOAL`."""
