"""`finetuned up`: Redis, the API and the workers on this machine, kept alive together and stopped together."""
