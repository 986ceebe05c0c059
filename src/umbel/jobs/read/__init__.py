"""Input files to rows, and rows to workloads: formats, ids, windows, and inputs that change while they are read."""
