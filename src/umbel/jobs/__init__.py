"""A batch as users see it: files in, a durable store, files out, a report and an independent check."""
