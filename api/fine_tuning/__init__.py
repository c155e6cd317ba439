"""Setup, training, and what the installation can do at the moment."""
