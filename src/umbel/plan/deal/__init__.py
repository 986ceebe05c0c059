"""Plans for a part of the rows: those of each replica, and those that fit a budget."""
