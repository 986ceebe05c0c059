"""A walk over a whole plan on a clock that counts steps: memory, load and seconds without running it."""
