"""Kernels for GPUs, written in Triton; imported only where they are used, since Triton is not everywhere."""
