"""The registry's own work: adapters that were made elsewhere come in, and versions go out."""
