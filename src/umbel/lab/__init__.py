"""Measures what techniques that may change answers do to a model's answers, and what they save."""
