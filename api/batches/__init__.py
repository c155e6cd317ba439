"""Batches of questions: a jsonl document in, a file of answers out."""
