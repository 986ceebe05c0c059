"""The planner's passes: each a pure function that decides one thing."""
