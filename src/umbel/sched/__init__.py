"""The brain of the loop: which rows run next, under which budgets."""
