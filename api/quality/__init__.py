"""The quality of each version's answers, and whether it has drifted."""
