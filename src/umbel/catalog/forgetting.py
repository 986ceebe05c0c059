"""Techniques that forget a part of long paths: see docs/forgetting.md."""

from __future__ import annotations

from umbel.technique import EVERY, CountSetting, ShareSetting, Technique

_NEEDS = "layers that keep keys and values of whole paths"

FORGETTING: tuple[Technique, ...] = (
    Technique(
        "forget",
        "sink-window",
        False,
        "umbel.attention.forget.sink_window:SinkWindow",
        "StreamingLLM, 2309.17453",
        _NEEDS,
        settings=(
            CountSetting("sinks", 4, "first tokens that are kept"),
            CountSetting("window", 1024, "last tokens that are kept", tries=(1024, 512, 256)),
        ),
        rows=EVERY,
        measure="umbel.cost.forget:SinkWindowMeasure",
    ),
    Technique(
        "forget",
        "lag-kv",
        False,
        "umbel.attention.forget.lag:LagKV",
        "LagKV, 2504.04704",
        _NEEDS,
        settings=(
            ShareSetting("budget", 0.25, "the share of each full part but the last that is kept"),
            CountSetting("lag", 128, "tokens of a part"),
        ),
        rows=EVERY,
        measure="umbel.cost.forget:LagMeasure",
    ),
    Technique(
        "forget",
        "sage-kv",
        False,
        "umbel.attention.forget.sage:SageKV",
        "SAGE-KV, 2503.08879",
        _NEEDS,
        settings=(ShareSetting("budget", 0.25, "the share of its prompt's tokens that a row keeps"),),
        rows=EVERY,
        measure="umbel.cost.forget:PromptShareMeasure",
    ),
    Technique(
        "forget",
        "h2o",
        False,
        "umbel.attention.forget.h2o:HeavyHitters",
        "H2O, 2306.14048",
        _NEEDS,
        settings=(ShareSetting("budget", 0.25, "the share of its path's tokens that a row keeps at most"),),
        rows=EVERY,
        measure="umbel.cost.forget:ShareMeasure",
    ),
)
