"""`finetuned demo`: a stack of its own learns a small handbook, and is asked about it before and after."""
