"""Models that transformers computes, with our attention, KV memory and products in its module."""
