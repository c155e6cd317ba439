"""Training: from a dataset to a verified, published adapter version."""
