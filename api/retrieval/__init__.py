"""Search in the uploaded documents, and answers written from what is found, over HTTP."""
