"""Keeps the index of the documents' chunks: it follows uploads and deletions by itself."""
