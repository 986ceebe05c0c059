"""Writes a plan or a report as one page of HTML: pictures, decisions and the tree, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from umbel.plan.explain.forest import forest, runs
from umbel.plan.explain.replicas import Grid, replica_grid
from umbel.plan.explain.svg import Series, curves
from umbel.plan.explain.text import duration

Record = Mapping[str, Any]

LISTED = 6  # of the shared runs that stand open under the forest; the others are folded


@dataclass(frozen=True, slots=True)
class Picture:
    """A card of a page: a picture, its name, what it shows, and where it has them the `runs` that are listed below and
    the `kinds` of blocks that it explains."""

    name: str
    note: str
    svg: Markup
    runs: Sequence[Record] = ()
    kinds: frozenset[str] = frozenset()


def plan_page(record: Record, text: str, title: str, head: Sequence[str] = ()) -> str:
    """The page of a plan: `record` as `umbel plan --json` gives it, `text` as `umbel plan` prints it, `head` what is to
    be said before all else: rows at fault, the budget."""
    seconds = record["seconds"]
    interval = f"{duration(seconds['low'])} to {duration(seconds['high'])}"
    saved, total = record["saved_prompt_tokens"], record["prompt_tokens"]
    rows = record.get("input_rows", record["rows"])
    tiles = [
        ("rows", f"{rows:,}", f"{total:,} prompt tokens in, about {record['output_tokens']:,} out"),
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
    grids = [replica_grid(record["replicas"], duration)] if "replicas" in record else []
    return render(title, tiles, pictures, {**record, "notes": [*head, *record["notes"]]}, text, grids=grids)


def render(
    title: str,
    tiles: Sequence[tuple[str, str, str]],
    pictures: Sequence[Picture],
    record: Record,
    text: str,
    tables: Mapping[str, Mapping[str, int]] | None = None,
    grids: Sequence[Grid] = (),
) -> str:
    """Fill the template. `tiles` are (name, value, note), `tables` have counts by name, `grids` rows of texts. Of
    `record`, a plan's or a report's, what it is about, the notes, decisions and refusals are shown."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"duration": duration, "number": lambda v: f"{v:,}" if isinstance(v, int) else v}
    source = files("umbel.plan.explain").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=title,
        about={name: value for name, value in record.get("about", {}).items() if value},
        tiles=tiles,
        pictures=pictures,
        listed=LISTED,
        tables=tables or {},
        grids=grids,
        notes=record["notes"],
        decisions=record.get("decisions", ()),
        refusals=record.get("refusals", ()),
        text=text,
    )


def exactness_tile(lossy: Sequence[str]) -> tuple[str, str, str]:
    """A tile that says whether all answers are exact, or which lossy techniques are in use."""
    return "answers", "lossy" if lossy else "exact", ", ".join(lossy) or "no technique that is taken may change them"


def forest_picture(tree: Sequence[Record]) -> Picture:
    """The picture of a tree's lines."""
    note = (
        "Every prompt is a column, its tokens run downwards. A block is a run of tokens that the rows above share, "
        "computed once instead of once for each: the stronger its colour, the more it saves."
    )
    drawn = forest(tree, label="prompts by row and token, shared runs as blocks")
    return Picture("Forest", note, drawn, runs(tree), frozenset(str(line["kind"]) for line in tree))


def _curves(curve: Record, pool: int, chunk: int) -> list[Picture]:
    x, unit = scaled(curve["seconds"])
    kv = Series(x, curve["kv_tokens"], "KV tokens in use", "kv", steps=True, filled=True)
    running = Series(x, curve["running"], "samples that draw a token", "running", steps=True)
    tokens = Series(x, curve["tokens"], "tokens computed", "tokens", steps=True, filled=True)
    return [
        Picture(
            "KV memory",
            "Tokens whose keys and values are held at a time, against the pool that they must fit.",
            curves(
                [kv], label="KV tokens over time", x_label=unit, y_label="tokens held", limit=pool, limit_name="pool"
            ),
        ),
        Picture(
            "Steps",
            "Tokens that one step of the model computes, against the most that it may (the chunk), and the samples "
            "among them that draw a token of their answer.",
            curves(
                *([tokens, running],),
                label="tokens a step over time",
                x_label=unit,
                y_label="tokens a step",
                limit=chunk,
                limit_name="chunk",
            ),
        ),
    ]


def scaled(seconds: Sequence[float]) -> tuple[list[float], str]:
    """Times in the unit that suits the longest, and a title with the unit for their axis."""
    longest = max(seconds, default=0.0)
    for size, unit in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if longest >= 3 * size:
            return [s / size for s in seconds], f"time, {unit}"
    return ([s * 1e3 for s in seconds], "time, milliseconds") if longest < 1 else (list(seconds), "time, seconds")
