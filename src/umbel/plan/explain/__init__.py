"""A plan in text, JSON, HTML and pictures."""
