"""Techniques that compute documents apart from the prompts that have them: see docs/documents.md."""

from __future__ import annotations

from umbel.technique import EVERY, CountSetting, Technique

REUSING: tuple[Technique, ...] = (
    Technique(
        "reuse",
        "turbo-rag",
        False,
        "umbel.engine.splicing:TurboRAG",
        "TurboRAG, 2410.07590",
        "keys that are rotated by positions",
        settings=(CountSetting("kept", 1 << 16, "tokens of documents that are kept beside the pool"),),
        rows=EVERY,
    ),
)
