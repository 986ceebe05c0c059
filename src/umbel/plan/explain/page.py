"""Writes a plan or a report as one page of HTML: pictures, decisions and the tree, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from umbel.plan.explain import svg
from umbel.plan.explain.svg import Series
from umbel.plan.explain.text import duration

Record = Mapping[str, Any]


def plan_page(record: Record, text: str, title: str) -> str:
    """The page of a plan: `record` as `to_json` gives it, `text` as `umbel plan` prints it."""
    seconds = record["seconds"]
    interval = f"{duration(seconds['low'])} to {duration(seconds['high'])}"
    saved, total = record["saved_prompt_tokens"], record["prompt_tokens"]
    tiles = [
        ("rows", f"{record['rows']:,}", f"{total:,} prompt tokens in, about {record['output_tokens']:,} out"),
        ("time", duration(seconds["expected"]), f"{interval}, {record['steps']:,} steps"),
        (
            "saved by sharing",
            f"{saved / total:.0%}" if total else "0%",
            f"{saved:,} prompt tokens, about {duration(record['saved_seconds'])}",
        ),
        ("KV peak", f"{record['kv_peak_tokens']:,}", f"tokens of a pool of {record['kv_tokens']:,}"),
        exactness_tile(record["lossy"]),
    ]
    pictures = [forest_picture(record["tree"]), *_curves(record["curve"], record["kv_tokens"], record["chunk"])]
    return render(title, tiles, pictures, record, text)


def render(
    title: str,
    tiles: Sequence[tuple[str, str, str]],
    pictures: Sequence[tuple[str, str, Markup]],
    record: Record,
    text: str,
) -> str:
    """Fill the template. `tiles` are (name, value, note), `pictures` (name, what it shows, SVG). Of `record`, a
    plan's or a report's, the notes, decisions and refusals are shown."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"duration": duration, "number": lambda v: f"{v:,}" if isinstance(v, int) else v}
    source = files("umbel.plan.explain").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=title,
        tiles=tiles,
        pictures=pictures,
        notes=record["notes"],
        decisions=record.get("decisions", ()),
        refusals=record.get("refusals", ()),
        text=text,
    )


def exactness_tile(lossy: Sequence[str]) -> tuple[str, str, str]:
    """A tile that says whether all answers are exact, or which lossy techniques are in use."""
    return "answers", "lossy" if lossy else "exact", ", ".join(lossy) or "no technique that is taken may change them"


def forest_picture(tree: Sequence[Record]) -> tuple[str, str, Markup]:
    """The name, explanation and picture of a tree's lines."""
    note = (
        "Every prompt is a column, its tokens run downwards; a coloured block is a run of tokens that the rows above "
        "share, computed once instead of once for each: the stronger its colour, the more it saves."
    )
    return "Forest", note, svg.forest(tree, label="prompts by row and token, shared runs as blocks")


def _curves(curve: Record, pool: int, chunk: int) -> list[tuple[str, str, Markup]]:
    x, unit = scaled(curve["seconds"])
    kv = Series(x, curve["kv_tokens"], "KV tokens in use", "kv", steps=True, filled=True)
    running = Series(x, curve["running"], "samples running", "running", steps=True)
    tokens = Series(x, curve["tokens"], "tokens a step", "tokens", steps=True, filled=True)
    return [
        (
            "KV memory",
            "Tokens whose keys and values are held, against the pool.",
            svg.curves([kv], label="KV tokens over time", x_label=unit, limit=pool, limit_name="pool"),
        ),
        (
            "Steps",
            "Tokens that one step computes, against the chunk, and the samples among them that draw a token.",
            svg.curves(
                [tokens, running], label="tokens a step over time", x_label=unit, limit=chunk, limit_name="chunk"
            ),
        ),
    ]


def scaled(seconds: Sequence[float]) -> tuple[list[float], str]:
    """Times in the unit that suits the longest, and the name of the unit."""
    longest = max(seconds, default=0.0)
    for size, unit in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if longest >= 3 * size:
            return [s / size for s in seconds], unit
    return ([s * 1e3 for s in seconds], "milliseconds") if longest < 1 else (list(seconds), "seconds")
