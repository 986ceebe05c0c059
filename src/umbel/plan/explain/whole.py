"""The head of a job that runs in windows: the whole input, by what its first window is planned to take."""

from __future__ import annotations

from collections.abc import Iterator

from umbel.plan.explain.text import WIDTH, Record, count, duration, entries, exactness, head_texts, rows_text


def whole_lines(
    record: Record, rows: int | None, row_scale: float, token_scale: float | None, width: int = WIDTH
) -> Iterator[str]:
    """Rows, tokens and time of the whole input, then its first window, whose plan `record` is.

    `rows` is how many rows there are to run, None where that shows at the end of the file only; `row_scale` and
    `token_scale` say how many times the window's rows and prompt tokens they are.
    """
    head = head_texts(record)
    window = f"{rows_text(record)}, {_output(record)}; {head['time']}; {head['compute']}"
    if rows is None or token_scale is None:
        shown = {"plan": "in windows; how many rows there are shows when all of the input is read"}
    else:
        shown = {"plan": _tokens(record, rows, row_scale, token_scale)}
        shown["time"] = _time(record, row_scale, token_scale)
    shown |= {"first window": window, "kv peak": head["kv peak"], "answers": exactness(record["lossy"])}
    yield from entries(shown, width)


def _output(record: Record) -> str:
    return f"about {record['output_tokens']:,} out"


def _tokens(record: Record, rows: int, row_scale: float, token_scale: float) -> str:
    prompts, output = record["prompt_tokens"] * token_scale, record["output_tokens"] * row_scale
    return f"{count(rows, 'row')} in windows, about {_rounded(prompts)} prompt tokens in, about {_rounded(output)} out"


def _time(record: Record, row_scale: float, token_scale: float) -> str:
    """The window's seconds, times what there is more to compute in all."""
    prompts, output = record["computed_prompt_tokens"], record["output_tokens"]
    scale = (prompts * token_scale + output * row_scale) / max(1, prompts + output)
    low, expected, high = (duration(record["seconds"][name] * scale) for name in ("low", "expected", "high"))
    unlike = "if all windows are like the first; later ones are larger, and rather faster"
    return f"about {expected} ({low} to {high}) {unlike}"


def _rounded(value: float) -> str:
    """A number of which two digits are known."""
    digits = max(0, len(f"{value:.0f}") - 2)
    return f"{round(value, -digits):,.0f}"
