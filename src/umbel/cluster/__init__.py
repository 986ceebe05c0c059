"""Several replicas of a model: each answers a part of the rows."""
