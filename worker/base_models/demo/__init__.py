"""The demo base model: a small GPT-2 trained from scratch on generated English."""
