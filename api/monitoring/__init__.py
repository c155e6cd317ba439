"""What goes on, for people who look: queues, workers, and the answers over time."""
