"""What the API and the workers mean by the same words."""
