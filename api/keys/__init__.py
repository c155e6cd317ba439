"""API keys: who asks, and keys as resources."""
