"""The models of the OpenAI dialect: base models, adapters, their versions, and checkpoints."""
