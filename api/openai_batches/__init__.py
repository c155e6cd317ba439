"""Batches of the OpenAI dialect: a file of requests in, files of answers and errors out."""
