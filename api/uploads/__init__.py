"""Large files that come in parts."""
