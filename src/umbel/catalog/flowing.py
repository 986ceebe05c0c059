"""Techniques of which rows pass which layers: see docs/flow.md. With a setting of 1 all rows pass all."""

from __future__ import annotations

from umbel.technique import EVERY, ShareSetting, Technique

FLOWING: tuple[Technique, ...] = (
    Technique(
        "flow",
        "swiftkv",
        False,
        "umbel.runner.flow.swift_kv:SwiftKV",
        "SwiftKV, 2410.03960",
        "layers whose keys are made of one product, head by head",
        settings=(
            ShareSetting("layers", 0.5, "the share of the layers that all tokens pass", tries=(0.67, 0.5, 0.33)),
        ),
        rows=EVERY,
        measure="umbel.cost.passed:FirstLayers",
    ),
)
