"""Sweeps: the search for a training's best configuration, one training job a trial."""
