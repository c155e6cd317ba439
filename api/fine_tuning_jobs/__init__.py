"""Fine-tuning jobs of the OpenAI dialect: a training together with its setup."""
