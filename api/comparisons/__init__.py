"""Two columns of an evaluation side by side: every difference, and the answers that changed most."""
