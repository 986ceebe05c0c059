"""Keepers: what of their paths rows keep, while the rest is forgotten and its memory is used for others."""
