"""Evaluations: what the base model, versions and the documents make of the same examples, in figures."""
