"""How each engine, or what stands in front of one, would run the rows of a job: a file for each."""
