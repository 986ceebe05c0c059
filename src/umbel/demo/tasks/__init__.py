"""Task families that the demo models learn, one small generator per file, with material that they never saw."""
