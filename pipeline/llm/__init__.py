"""The one door to language models: chat requests in, texts out."""
