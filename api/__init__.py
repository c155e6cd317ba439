"""The HTTP service: parses, asks a repository, enqueues, answers."""
