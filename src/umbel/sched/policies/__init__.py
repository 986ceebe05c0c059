"""What a scheduler may do differently: which row is next, what stays cached, what may start."""
