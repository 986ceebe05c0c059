"""The engine: assembled parts, the loop, and the rows on their way to an answer."""
