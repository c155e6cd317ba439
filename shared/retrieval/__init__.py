"""Search in the documents: the index as its readers see it, and the prompt of what was found."""
