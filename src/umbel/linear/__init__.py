"""What a matrix product with a model's weights may become: one file per method."""
