"""Files and batches of a server: durable records, jobs that run on its session, and their plans."""
