"""Kernels, and their meaning in plain torch."""
