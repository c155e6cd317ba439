"""Reports of real runs, with the program that makes them: `python -m docs.reports`."""
