"""Logical KV: who holds which pages, without a single tensor."""
