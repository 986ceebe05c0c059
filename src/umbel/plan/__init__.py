"""From a workload to a plan: what is computed once, in which order, in what memory, and why."""
