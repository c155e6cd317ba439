"""The registry: names, versions, promotion and lineage."""
