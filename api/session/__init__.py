"""The session of a browser: a key that its pages send, but cannot read."""
