"""Files as the OpenAI dialect shows them: the other face of documents."""
