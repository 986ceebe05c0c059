"""Techniques of what attention reads. The first setting of each is a share, of which 1 reads everything."""

from __future__ import annotations

from umbel.technique import CountSetting, ShareSetting, Technique

PROMPTS, ANSWERS = "prompts", "answers"
OF_WINDOWS = "the share of the cells before its window that a prompt's token reads"
COVERS = (0.99, 0.95, 0.9)
OF_CELLS = "the share of the cells before its own that a prompt's token reads"
OF_MASS = "the share of attention, as measured before each window, that each head keeps"
OF_PAGES = "the share of the pages of 128 tokens that an answer's token reads"


def selector(name: str, loads: str, paper: str, rows: str, share: ShareSetting, *counts: CountSetting) -> Technique:
    """A row of a selector: lossy, for what obeys views."""
    loads = f"umbel.attention.select.{loads}"
    needs = "attention that obeys views"
    return Technique("select", name, False, loads, paper, needs, settings=(share, *counts), rows=rows)


SELECTING: tuple[Technique, ...] = (
    selector(
        "pages",
        "pages:PagePicks",
        "Quest, 2406.10774; LServe, 2502.14866",
        ANSWERS,
        ShareSetting("budget", 0.25, OF_PAGES),
    ),
    selector(
        "streaming",
        "a_shape:Streaming",
        "StreamingLLM, 2309.17453",
        ANSWERS,
        ShareSetting("budget", 0.25, OF_PAGES),
    ),
    selector(
        "vertical-slash",
        "vertical_slash:VerticalSlash",
        "MInference, 2407.02490",
        PROMPTS,
        ShareSetting("budget", 0.25, OF_WINDOWS),
    ),
    selector(
        "flex-prefill",
        "flex_prefill:FlexPrefill",
        "FlexPrefill, 2502.20766",
        PROMPTS,
        ShareSetting("mass", 0.95, OF_MASS, tries=(0.99, 0.95, 0.8)),
    ),
    selector(
        "a-shape",
        "a_shape:AShape",
        "MInference, 2407.02490",
        PROMPTS,
        ShareSetting("budget", 0.25, OF_CELLS),
    ),
    selector(
        "hip",
        "hip:HalvedGroups",
        "HiP, 2406.09827; InfiniteHiP, 2502.08910",
        PROMPTS,
        ShareSetting("budget", 0.25, OF_WINDOWS),
        CountSetting("most", 64, "cells of 128 tokens that are read before a window at most"),
    ),
    selector(
        "criti-prefill",
        "criti_prefill:CritiPrefill",
        "CritiPrefill, 2409.12490",
        PROMPTS,
        ShareSetting("budget", 0.25, OF_WINDOWS),
    ),
    selector(
        "proxy-attn",
        "proxy_attn:ProxyAttn",
        "ProxyAttn, 2509.24745",
        PROMPTS,
        ShareSetting("mass", 0.95, "the share of predicted attention that each head keeps", COVERS),
    ),
    selector(
        "streaming-heads",
        "streaming_heads:StreamingHeads",
        "LServe, 2502.14866; DuoAttention, 2410.10819",
        PROMPTS,
        ShareSetting(
            "mass", 0.95, "the share of attention on what is first and near from which a head reads no more", COVERS
        ),
        CountSetting("near", 256, "tokens before its window that such a head reads"),
    ),
    selector(
        "loop-serve",
        "loop_serve:LoopServe",
        "LoopServe, 2507.13681",
        ANSWERS,
        ShareSetting("budget", 0.25, OF_PAGES),
    ),
)
