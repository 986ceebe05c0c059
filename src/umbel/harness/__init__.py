"""A model for lm-evaluation-harness: its questions are a prefix forest."""
