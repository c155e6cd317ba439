"""Batches: thousands of questions of a file, answered behind interactive traffic, each exactly once."""
