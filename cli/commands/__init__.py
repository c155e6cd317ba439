"""What the command can be told, one file a concern."""
