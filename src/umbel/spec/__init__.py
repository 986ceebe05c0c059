"""Tokens that are proposed before the model draws them: by whom, and how many."""
