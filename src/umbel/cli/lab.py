"""`umbel lab`: what techniques that may change answers do to a model's answers, and what they save."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from umbel.batch import engine_options
from umbel.batch.declared import Option
from umbel.errors import UsageError
from umbel.lab.tasks import USUAL

if TYPE_CHECKING:
    from umbel.lab.session import LabRecord

_TECHNIQUES = "By commas: pages, pages:budget=0.5, linear=int8 ...; all that the catalogue calls lossy, if not given."
_TASKS = "By commas: labels, extract, copy, add, story, passage-SIZE, lookup-SIZE@DEPTH, or your FILE.jsonl."
_BUDGETS = "Of techniques with a budget, by commas [as the catalogue says: 0.5,0.25,0.1 for most]."
_ROWS = "Of each task; a limit of 1% takes 100 right answers to tell."
_FRESH = "Forget what was measured of this model before."
_FROM = "Show this record (as --json prints it) instead of measuring."
_KEPT = "Show all that earlier sessions measured of this model instead of measuring."
_PAGE = "Write a section for each technique into this Markdown page, too."


def lab_command(
    model: Annotated[str | None, Option("-m", "--model", help="A directory, 'demo' or a hub id.")] = None,
    techniques: Annotated[str | None, Option(help=_TECHNIQUES, metavar="NAMES")] = None,
    tasks: Annotated[str, Option(help=_TASKS, metavar="NAMES")] = USUAL,
    budgets: Annotated[str, Option(help=_BUDGETS, metavar="SHARES")] = "",
    rows: Annotated[int, Option(help=_ROWS, min=1)] = 100,
    rounds: Annotated[int, Option(help="How often each is timed; the fastest counts.", min=1)] = 2,
    seed: Annotated[int, Option(help="Of the questions.")] = 0,
    dtype: engine_options.Dtype = "auto",
    device: engine_options.Device = "auto",
    threads: Annotated[int | None, Option(help="CPU threads.")] = None,
    speculate: engine_options.Speculate = "auto",
    fresh: Annotated[bool, Option("--fresh", help=_FRESH, destroys=True)] = False,
    html: Annotated[Path | None, Option("--html", help="Write a page with pictures to this file.")] = None,
    page: Annotated[Path | None, Option(help=_PAGE)] = None,
    kept: Annotated[bool, Option("--kept", help=_KEPT)] = False,
    from_record: Annotated[Path | None, Option("--from", help=_FROM)] = None,
    as_json: Annotated[bool, Option("--json", help="Print the record as JSON, not Markdown.")] = False,
) -> None:
    """Measure what techniques that may change answers do, beside what they save.

    Dense answers each task first, then each technique. What is found is kept by model, so that umbel plan and umbel run
    can choose with --allow-lossy --max-damage 1%.

    \f
    Examples:
      umbel lab -m demo --techniques int8,pages --html lab.html
      umbel lab -m demo --tasks mine.jsonl --rows 200
    """
    # Imported when the command runs, so that --help is quick.
    from umbel.batch.extras import check_page, write_page
    from umbel.lab.page import lab_page
    from umbel.lab.table import markdown

    if html is not None:
        check_page(html, sources=[Path(name) for name in _listed(tasks)])
    if from_record is not None:
        record = _read(from_record)
    elif kept:
        record = _kept(model)
    else:
        settings = {"dtype": dtype, "device": device, "threads": threads, "speculate": speculate}
        record = _measured(model, techniques, tasks, budgets, (rows, rounds, seed), settings, fresh=fresh)
    if html is not None:
        write_page(html, lab_page(record))
    if page is not None:
        _write_sections(page, record)
    print(json.dumps(record.as_dict(), indent=1) if as_json else markdown(record), end="\n" if as_json else "")


def _measured(
    model: str | None,
    techniques: str | None,
    tasks: str,
    budgets: str,
    numbers: tuple[int, int, int],
    settings: dict[str, object],
    *,
    fresh: bool,
) -> LabRecord:
    """Measure. Raises UsageError for what is not there."""
    from umbel.lab.offers import find_offers
    from umbel.lab.session import LabAsk, damage_file, run_session

    if model is None:
        raise UsageError("give a model: umbel lab --model DIR")
    offers = find_offers(_listed(techniques or ""), _shares(budgets))
    if fresh:
        damage_file(model).forget()
    return run_session(LabAsk(model, offers, _listed(tasks), *numbers, settings), _say())


def _kept(model: str | None) -> LabRecord:
    from umbel.lab.session import kept_record

    if model is None:
        raise UsageError("give a model: umbel lab --model DIR --kept")
    return kept_record(model)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _shares(budgets: str) -> list[float]:
    try:
        return [float(budget) for budget in _listed(budgets)]
    except ValueError:
        raise UsageError(f"--budgets {budgets}: must be numbers with commas between them") from None


def _read(path: Path) -> LabRecord:
    from umbel.lab.session import LabRecord

    try:
        return LabRecord.of_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--from {path}: is no record of umbel lab --json ({type(error).__name__}: {error})") from None


def _write_sections(page: Path, record: LabRecord) -> None:
    from umbel.bench.page import write_between
    from umbel.lab.table import BEGIN, END, sections

    write_between(page, sections(record), BEGIN, END)


def _say() -> Callable[[str], None]:
    began = time.monotonic()

    def say(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        print(f"{minutes:3d}:{seconds:02d}  {line}", file=sys.stderr, flush=True)

    return say
