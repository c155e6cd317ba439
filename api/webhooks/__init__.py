"""Webhooks: who is told of the end of jobs, and telling them."""
