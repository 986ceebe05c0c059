"""Many replicas on a virtual clock: the production dealer, nodes that are slow, come late or are lost."""
