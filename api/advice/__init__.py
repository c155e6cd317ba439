"""Tune, answer from the documents, both or neither: the jobs that find it out."""
