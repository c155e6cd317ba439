"""Loading base models, and speaking to them in their format."""
