"""Adapters in PEFT's layout: read, checked against the model they are for, and put beside its products."""
