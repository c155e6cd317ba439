"""Jobs: claimed from the table, run in a child process, watched, and handed on when something dies."""
