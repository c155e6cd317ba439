"""Chat completions and completions of the OpenAI dialect."""
