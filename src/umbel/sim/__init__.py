"""The production loop on a virtual clock: what a plan, or another engine's rules, would do on a machine."""
