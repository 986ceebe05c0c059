"""Device tensors behind the KV pages."""
