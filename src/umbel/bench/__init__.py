"""The bench harness: the same workloads through Umbel and its peers, in turn, checked and held against the floors."""
