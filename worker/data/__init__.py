"""From documents to a dataset: extract the text, cut it into chunks, make examples of them."""
