"""The `finetuned` command: a client of the public HTTP API, and the local stack."""
