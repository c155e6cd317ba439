"""Measurements that a person can repeat: each prints a small table and writes JSON beside it."""
