"""Database revisions, one file each."""
