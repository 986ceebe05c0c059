"""The compiled kernels: C++ sources, and `calls.py`, which is what Python sees of them."""
