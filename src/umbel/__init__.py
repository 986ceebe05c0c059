"""Umbel: the batch query engine for large language models."""
