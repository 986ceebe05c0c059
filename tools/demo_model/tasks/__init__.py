"""Task families the demo models learn, one small generator per file."""
