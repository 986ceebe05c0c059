"""Input files to rows, and rows to workloads: formats, ids, windows, and what makes a second look at a file safe."""
