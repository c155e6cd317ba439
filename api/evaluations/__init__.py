"""Evaluations: base, versions and retrieval on the same examples; created here, made by a job, read as a report."""
