"""The price list: a model's shape gives FLOPs and bytes, a machine turns them into seconds."""
