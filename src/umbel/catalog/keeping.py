"""Techniques that keep KV beyond the job that computed it: see docs/kv_dir.md."""

from __future__ import annotations

from umbel.technique import Technique

KEEPING: tuple[Technique, ...] = (
    Technique(
        "tier",
        "folder",
        True,
        "umbel.kv.shelf:Shelf",
        "CachedAttention, 2403.19708",
        "layers that keep keys and values, and prompts of 128 tokens and more",
        by="kv_dir=DIR",
        argument="DIR",
    ),
)
