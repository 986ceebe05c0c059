"""An OpenAI-compatible server over one session: HTTP and what belongs to it live here alone."""
