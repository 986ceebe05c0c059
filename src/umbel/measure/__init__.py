"""Steps timed on purpose, so that plans know what a machine takes before the first job runs on it."""
