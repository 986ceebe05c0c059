"""What happened to a job beside what its plans expected: recorded, added up, printed, drawn."""
