"""The bench harness: the same workloads through Umbel and its peers, in turn, with checked answers and floors to
compare with."""
