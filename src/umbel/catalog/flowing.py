"""Techniques of which rows pass which layers, and which tokens of prompts are read: see docs/flow.md. With a setting of
1 all are."""

from __future__ import annotations

from umbel.technique import EVERY, CountSetting, ShareSetting, Technique

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
    Technique(
        "flow",
        "skip-decode",
        False,
        "umbel.runner.flow.skip_decode:SkipDecode",
        "SkipDecode, 2307.02628",
        "layers that keep keys and values",
        settings=(
            ShareSetting("least", 0.5, "the share of layers that late tokens of answers pass", tries=(0.83, 0.67, 0.5)),
            CountSetting("over", 64, "tokens of an answer over which its layers fall to that"),
        ),
        rows=EVERY,
        measure="umbel.cost.passed:FallingLayers",
    ),
    Technique(
        "prompt",
        "spec-prefill",
        False,
        "umbel.engine.spec_prefill:SpecPrefill",
        "Speculative prefill, 2502.02789",
        "layers that keep keys and values of whole paths, beside a draft model",
        settings=(ShareSetting("keep", 0.5, "the share of a prompt's own parts that is read", tries=(0.7, 0.5, 0.3)),),
        rows=EVERY,
    ),
)
