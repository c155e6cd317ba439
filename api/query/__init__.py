"""The main system's question: to the documents or to the fine-tuned model."""
