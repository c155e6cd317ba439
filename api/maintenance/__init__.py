"""The doctor: whether rows, files and Redis agree, what to do where they do not, and doing it."""
