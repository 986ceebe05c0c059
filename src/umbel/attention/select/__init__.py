"""Selectors: which cells of their paths rows read."""
