"""Techniques of what attention reads. The first setting of each is a share, of which 1 reads everything."""

from __future__ import annotations

from umbel.technique import ShareSetting, Technique

PROMPTS, ANSWERS = "prompts", "answers"
OF_CELLS = "the share of the cells before its own that a prompt's token reads"
OF_MASS = "the share of attention, as measured before each window, that each head keeps"
OF_PAGES = "the share of the pages of 128 tokens that an answer's token reads"


def selector(name: str, loads: str, paper: str, rows: str, share: ShareSetting) -> Technique:
    """A row of a selector: lossy, for what obeys views."""
    loads = f"umbel.attention.select.{loads}"
    needs = "attention that obeys views"
    return Technique("select", name, False, loads, paper, needs, settings=(share,), rows=rows)


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
        ShareSetting("budget", 0.25, "the share of the cells before its window that a prompt's token reads"),
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
)
