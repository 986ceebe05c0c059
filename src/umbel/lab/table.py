"""Shows what the lab measured: Markdown tables, and a section for each technique with its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from inspect import cleandoc

from umbel.bench.page import table
from umbel.cost.damage import MeasuredTechnique, TaskDamage
from umbel.lab.session import LabRecord
from umbel.plan.choice import lossy_rows
from umbel.technique import Technique

BEGIN, END = "<!-- lab: begin -->", "<!-- lab: end -->"
SUMMARY = ("technique", "seconds", "keys read", "FLOPs", "KV bytes", "weights", "kept mass", "lost at most", "part")
SUMMARY += ("at token", "drift")


def summary_rows(found: Sequence[MeasuredTechnique]) -> list[list[str]]:
    """A row for each technique, under SUMMARY: what it saves, as shares of dense's, beside what it does."""
    return [[one.name, *_saves(one), *_does(one)] for one in found]


def _saves(one: MeasuredTechnique) -> list[str]:
    shares = (one.seconds_share, one.keys_share, one.flops_share, one.kv_share, one.weight_share)
    return [f"{share:.0%}" for share in shares]


def _does(one: MeasuredTechnique) -> list[str]:
    """For all tasks together: mass kept (and the least), the worst loss, answers that part, where, the mean drift."""
    rows, parted = (sum(getattr(task, name) for task in one.tasks) for name in ("rows", "parted"))
    places = sorted(task.parting for task in one.tasks if task.parting is not None)
    place = f"{places[len(places) // 2]:.0f}" if places else "–"
    tokens = sum(task.rows * task.output_tokens for task in one.tasks)
    drift = sum(task.rows * task.output_tokens * task.drift for task in one.tasks) / (tokens or 1.0)
    kept = "–" if one.kept_mass is None else f"{one.kept_mass:.1%} ({one.least_mass or 0.0:.0%})"
    return [kept, worst_text(one), f"{parted / (rows or 1):.1%}", place, f"{drift:.4f}"]


def worst_text(one: MeasuredTechnique) -> str:
    """The largest share of dense's right answers that is lost in a task, and which."""
    worst = max(one.tasks, key=lambda task: task.share_lost, default=None)
    if worst is None or not worst.lost:
        return "0.0%"
    return f"{worst.share_lost:.1%} ({worst.task})"


def task_head(found: Sequence[MeasuredTechnique]) -> list[str]:
    """The heads of `task_rows`: the tasks, each with the tokens of its prompts."""
    return ["technique", *(f"{name} ({some.prompt_tokens:,.0f})" for name, some in _tasks(found).items())]


def task_rows(found: Sequence[MeasuredTechnique]) -> list[list[str]]:
    """Right answers by task: those of dense, then of each technique with those that it has lost."""
    tasks = _tasks(found)
    dense = ["dense", *(_share(some.dense_right, some.labelled) for some in tasks.values())]
    return [dense, *([one.name, *(_right(one, name) for name in tasks)] for one in found)]


def _tasks(found: Sequence[MeasuredTechnique]) -> dict[str, TaskDamage]:
    """The tasks by name, as some technique was asked them."""
    return {task.task: task for one in reversed(found) for task in one.tasks}


def _right(one: MeasuredTechnique, name: str) -> str:
    task = next((task for task in one.tasks if task.task == name), None)
    if task is None:
        return "–"
    share = _share(task.right, task.labelled)
    return f"{share} (lost {task.lost})" if task.lost else share


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"


def markdown(record: LabRecord) -> str:
    """The tables of a session, and what could not be measured."""
    parts = [_about(record), table(SUMMARY, summary_rows(record.techniques)), NOTE]
    parts.append(table(task_head(record.techniques), task_rows(record.techniques)))
    parts += [f"- {name}: not measured: {why}" for name, why in record.failures.items()]
    return "\n\n".join(parts) + "\n"


NOTE = (
    "Seconds, keys, FLOPs and bytes are shares of dense's. Kept mass is the share of dense's softmax on keys that are "
    "read, of rows that do not read all (the least of a row in brackets). Lost are answers that dense has right, as a "
    "share of those, of the task that loses most. Parted answers differ in a token, half of them by the one named; "
    "drift is how far the log-probabilities of dense's tokens move on average up to there."
)


def _about(record: LabRecord) -> str:
    about = record.about
    text = f"{about['model']} in {about['dtype']} on {about['machine']}"
    if "rows" in about:
        text += f", {about['rows']} rows of each task, the fastest of {about['rounds']} rounds"
    return f"{text}; {about['date'][:10]}."


def sections(record: LabRecord) -> str:
    """For each technique that was measured what it is, its source, and its table: a part of docs/techniques.md."""
    taken = (row for one in record.techniques for row in lossy_rows() if row.asked_by(one.option, one.value))
    rows = dict.fromkeys(taken)
    return "\n\n".join([_about(record) + " " + NOTE, *(part for row in rows for part in _section(row, record))]) + "\n"


def _section(row: Technique, record: LabRecord) -> Iterator[str]:
    """The heading, paragraph, source and table of a technique."""
    mine = [one for one in record.techniques if row.asked_by(one.option, one.value)]
    yield f"### {row.family}: {row.name}"
    yield f"{said_of(row)} Needs {row.needs}. Source: {row.paper}."
    yield table(SUMMARY, summary_rows(mine))
    yield table(task_head(mine), task_rows(mine))


def said_of(row: Technique) -> str:
    """What the file of a technique says of itself, first of all."""
    return " ".join(cleandoc(import_module(row.loads.partition(":")[0]).__doc__ or "").split("\n\n")[0].split())
