"""Checks and times everything on one GPU, in parts with a budget of seconds each: `python -m bench.gpu`."""
