"""Answers questions: the registry of versions, the engine, and the worker around them."""
