"""Text to token ids and back: tokenizer files, chat templates, the texts of answers, stop strings."""
