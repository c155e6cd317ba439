"""Everything that computes: documents to datasets, datasets to adapters, questions to answers."""
