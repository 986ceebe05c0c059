"""Attention over the forest: the seam and its backends."""
