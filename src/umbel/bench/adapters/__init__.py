"""Scripts that run one engine each in that engine's own environment; they import nothing of the package."""
