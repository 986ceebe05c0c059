"""What an answer's text says beside its content: tool calls and reasoning, as models write them."""
