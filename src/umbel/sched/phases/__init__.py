"""What a step is filled with, in turn: decoding samples, prompts that are under way, samples that start."""
