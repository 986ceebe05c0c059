"""Prints a plan as a database does: every decision with its reason, the forest as a tree, time as an interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from textwrap import wrap
from types import MappingProxyType
from typing import Any

from umbel.ir.plan import Plan
from umbel.plan.explain.record import to_json
from umbel.plan.explain.replicas import replica_lines, replica_texts
from umbel.plan.explain.total import price_text

__all__ = ["count", "duration", "exactness", "explain", "head_lines", "to_json"]

MAX_LEVELS = 8
MAX_NOTES = 12
MAX_REFUSED = 3  # forms of answers
WIDTH = 118  # of a line; longer reasons go on below
_NAMES = 14  # width of the names
_NARROWEST = 24  # for the text of a branch, however deep it is
_PLACE = MappingProxyType({"end": 0, "run": 1, "own": 2, "rest": 2})  # among siblings
Record = Mapping[str, Any]


def explain(plan: Plan, width: int = WIDTH) -> str:
    """The plan as text, a few dozen lines whatever its size; ends with a newline. Lines of more than `width` characters
    go on below; one of 60 is enough."""
    return text_of(to_json(plan), width)


def text_of(record: Record, width: int = WIDTH) -> str:
    """The text of a plan that `to_json` wrote."""
    lines = [
        *title_lines(record, width),
        *entries(head_texts(record), width),
        *note_lines(record["notes"], width),
        "decisions",
        *decision_lines(record["decisions"], width),
        *refusal_lines(record["refusals"], width),
        *_replicas(record, width),
        *level_lines(record["levels"]),
        "forest",
        *tree_lines(record["tree"], branch, width),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _replicas(record: Record, width: int) -> Iterator[str]:
    """The shares of several replicas, and what is to be said of them."""
    if "replicas" in record:
        yield from replica_lines(record["replicas"], duration)
        yield from entries(dict(replica_texts(record["replicas"], duration)), width)


def head_lines(record: Record, width: int = WIDTH) -> list[str]:
    """The run in a few lines: rows, time, compute."""
    head = head_texts(record)
    shown = {"plan": f"{rows_text(record)}, {_output(record)}{_twins(record)}"}
    shown |= {name: head[name] for name in ("compute", "time", "kv peak")}
    shown["answers"] = exactness(record["lossy"])
    replicas = decision_lines([d for d in record["decisions"] if d["name"] == "replicas"], width)
    return [*entries(shown, width), *replicas, *note_lines(record["notes"], width)]


def duration(seconds: float) -> str:
    """A time as text: three digits below a minute, then the two largest units."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if 0 < seconds < 0.1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def count(n: int, noun: str, several: str | None = None) -> str:
    """A number of things as text: 1 row, 1,000 rows; `several` where that is no "s"."""
    return f"{n:,} {noun if n == 1 else several or noun + 's'}"


def rows_text(record: Record) -> str:
    """The number of rows as the user counts them, and of branches where rows have several."""
    planned: int = record["rows"]
    rows = record.get("input_rows", planned)
    return count(rows, "row") + (f" in {count(planned, 'branch', 'branches')}" if planned != rows else "")


def exactness(lossy: Sequence[str]) -> str:
    """Whether all answers are exact, or which lossy techniques are in use."""
    return f"lossy: {', '.join(lossy)}" if lossy else "all exact"


def note_lines(notes: Sequence[str], width: int = WIDTH, most: int = MAX_NOTES) -> Iterator[str]:
    """Notes for the user on the model and the input; the first ones, where there are many."""
    for text in notes[:most]:
        yield from entry("note", text, width)
    if more := len(notes) - most:
        yield from entry("", f"... and {count(more, 'more note')} (--json lists all)", width) if more > 0 else ()


def entry(name: str, text: str, width: int = WIDTH) -> Iterator[str]:
    """A name and a text, which goes on below where it is long; no word is broken."""
    first, *others = wrap(text, width - _NAMES - 2, break_on_hyphens=False, break_long_words=False) or [""]
    yield f"  {name:<{_NAMES}}{first}"
    yield from (f"  {'':<{_NAMES}}{other}" for other in others)


def entries(texts: Mapping[str, str], width: int = WIDTH) -> Iterator[str]:
    """Texts under their names."""
    for name, text in texts.items():
        yield from entry(name, text, width)


def title_lines(record: Record, width: int = WIDTH) -> list[str]:
    """Rows, tokens in and out, and whether answers are exact: one line where it is wide enough."""
    rows = f"PLAN  {rows_text(record)}, {count(record['prompt_tokens'], 'prompt token')} in, {_output(record)}"
    line = f"{rows}    {exactness(record['lossy'])}"
    if len(line) <= width:
        return [line]
    below = wrap(exactness(record["lossy"]), width, initial_indent="      ", subsequent_indent="      ")
    return [*wrap(rows, width, subsequent_indent="      ", break_long_words=False), *below]


def head_texts(record: Record) -> dict[str, str]:
    """What there is to say first, by its name: time, compute, batches, KV, duplicates."""
    return {
        "time": _time(record),
        **({"price": price_text(record["price"])} if "price" in record else {}),
        "compute": f"{count(record['computed_prompt_tokens'], 'prompt token')}; {_saving(record)}",
        "batches": _batches(record),
        "kv peak": _kv(record),
        "duplicates": _duplicates(record),
        **({"layout": record["layout"]["text"]} if record.get("layout", {}).get("text") else {}),
        **({"documents": record["layout"]["reuse"]} if record.get("layout", {}).get("reuse") else {}),
        **({"forms": _forms(record["forms"])} if "forms" in record else {}),
    }


def _time(record: Record) -> str:
    """The time of the whole job, where its start is known, and of its steps."""
    steps = count(record["steps"], "step")
    if "total_seconds" not in record:
        return f"{_interval(record['seconds'])} in {steps}"
    parts = {**record["startup"], "steps": record["seconds"]}
    read, load, run = (duration(parts[name]["expected"]) for name in ("reading", "loading", "steps"))
    return f"{_interval(record['total_seconds'])}: {read} to read and plan, {load} to load, {run} in {steps}"


def _interval(seconds: Mapping[str, float]) -> str:
    low, expected, high = (duration(seconds[name]) for name in ("low", "expected", "high"))
    return f"{expected} ({low} to {high})"


def _output(record: Record) -> str:
    low, high = record["output_range"]["low"], record["output_range"]["high"]
    interval = f" ({low:,} to {high:,})" if high > low else ""
    return f"about {record['output_tokens']:,} out{interval}"


def _saving(record: Record) -> str:
    saved = record["saved_prompt_tokens"]
    if not saved:
        return "nothing is shared"
    share = saved / record["prompt_tokens"]
    return f"sharing saves {saved:,} ({share:.1%}), about {duration(record['saved_seconds'])}"


def _batches(record: Record) -> str:
    shape = record["batches"]
    if not record["steps"]:
        return "none"
    tokens, running = (_round(shape[name]) for name in ("tokens", "running"))
    chunk, most = record["chunk"], _round(shape["running_peak"])
    return f"{tokens} of {chunk:,} tokens a step on average, {running} samples running (at most {most})"


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _kv(record: Record) -> str:
    peak, pool = record["kv_peak_tokens"], record["kv_tokens"]
    share = f" ({peak / pool:.0%})" if pool else ""
    return f"{peak:,} tokens of a pool of {pool:,}{share}"


def _duplicates(record: Record) -> str:
    n, twins = record["duplicate_rows"], record["twins"]
    if not n:
        return "none"
    text = f"{count(n, 'row')} like an earlier one"
    if twins:
        return f"{text}; {twins:,} of them answered by it" if twins < n else f"{text}, answered by it"
    return text


def _forms(forms: Record) -> str:
    """How many forms answers have, what they take, and which are refused, each with its reason."""
    text = f"{forms['distinct']:,} different ones of {count(forms['rows'], 'row')}"
    if forms["compile_seconds"] is not None:
        text += f", compiled in {duration(forms['compile_seconds'])} while prompts are computed"
    if forms["forced_share"] is not None:
        n = count(forms["walked"], "walk")
        text += f"; about {forms['forced_share']:.0%} of their tokens are certain, computed together ({n})"
    listed = [f"{count(one['rows'], 'row')}: {one['reason']}" for one in forms["refused"][:MAX_REFUSED]]
    more = len(forms["refused"]) - len(listed)
    told = "; ".join([*listed, *([f"{more:,} more reasons (--json)"] if more > 0 else [])])
    return f"{text}; refused: {told}" if told else text


def _twins(record: Record) -> str:
    return f", {record['twins']:,} answered by a twin" if record["twins"] else ""


def decision_lines(decisions: Sequence[Record], width: int = WIDTH) -> Iterator[str]:
    """A line for each choice: its value, its reason, and the cost of the alternatives."""
    for decision in decisions:
        value = f"{decision['value']:,}" if isinstance(decision["value"], int) else decision["value"]
        text = f"{value}: {decision['reason']}"
        if decision["alternatives"]:
            text += "; instead " + ", ".join(f"{n} {duration(s)}" for n, s in decision["alternatives"].items())
        yield from entry(decision["name"], text, width)


def refusal_lines(refusals: Sequence[Record], width: int = WIDTH) -> Iterator[str]:
    """A line for each technique that is not used: what it would cost, and why."""
    if refusals:
        yield "refused"
    for refusal in refusals:
        seconds = refusal["seconds"]
        cost = "" if not seconds else f"{'saves' if seconds < 0 else 'adds'} {duration(abs(seconds))}; "
        family, _, name = refusal["technique"].rpartition(": ")
        yield from entry(family, f"{name}: {cost}{refusal['reason']}", width)


def level_lines(levels: Sequence[Record]) -> Iterator[str]:
    """A table of the forest by depth, the deepest levels summed up."""
    yield f"{'levels':<8}{'runs':>12}{'rows':>12}{'tokens':>14}{'saved':>14}"
    for depth, v in enumerate(levels[:MAX_LEVELS]):
        yield f"  {depth:<6}{v['nodes']:>12,}{v['rows']:>12,}{v['tokens']:>14,}{v['saved']:>14,}"
    rest = levels[MAX_LEVELS:]
    if rest:
        nodes, tokens, saved = (sum(v[name] for v in rest) for name in ("nodes", "tokens", "saved"))
        yield f"  {'deeper':<6}{nodes:>12,}{rest[0]['rows']:>12,}{tokens:>14,}{saved:>14,}"


def tree_lines(tree: Sequence[Record], describe: Callable[[Record], str], width: int = WIDTH) -> Iterator[str]:
    """The lines of a tree with their branches drawn; `describe` gives the text of one, which goes on below where it is
    long."""
    kids: dict[int, list[int]] = {}
    for i, line in enumerate(tree):
        kids.setdefault(line["parent"], []).append(i)
    for below in kids.values():
        below.sort(key=lambda i: _PLACE[tree[i]["kind"]])
    todo = [(i, "", i == kids[-1][-1]) for i in reversed(kids.get(-1, []))]
    while todo:
        at, indent, last = todo.pop()
        below = kids.get(at, [])
        inner = indent + ("   " if last else "│  ")
        beside = inner + ("│    " if below else "     ")  # of what goes on below
        yield from wrap(
            describe(tree[at]),
            max(width, len(beside) + _NARROWEST),
            initial_indent=f"{indent}{'└─' if last else '├─'} ",
            subsequent_indent=beside,
            break_long_words=False,
        )
        todo += [(i, inner, i == below[-1]) for i in reversed(below)]


def branch(line: Record) -> str:
    """The text for one line of the tree."""
    rows, tokens, kind = line["rows"], count(line["tokens"], "token"), line["kind"]
    if kind == "end":
        return f"{count(rows, 'row')} ending here"
    if kind == "own":
        return f"{count(rows, 'row')} of {'its' if rows == 1 else 'their'} own, {tokens}"
    saving = f"saves {line['saved_tokens']:,}" if kind == "run" else f"saving {line['saved_tokens']:,}"
    if line["saved_seconds"]:
        saving += f", {duration(line['saved_seconds'])}"
    if kind == "run":
        return f"{tokens} x {count(rows, 'row')}, {saving}"
    n = line["branches"]
    return f"{n:,} other branch{'' if n == 1 else 'es'} of {count(rows, 'row')}, {tokens}, {saving}"
