"""One decoder driven by a spec, its weights, and the Hugging Face families it understands."""
