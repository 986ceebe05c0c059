"""Which forks of a prefix forest become shared runs: rules, prices, an exact solver, and the forest that follows."""
