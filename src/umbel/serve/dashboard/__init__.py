"""The dashboard of a server: what its engine does now, its batches, and a page to send a prompt."""
