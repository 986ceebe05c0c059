"""Which rows of a step pass which layers, and what the others leave there."""
