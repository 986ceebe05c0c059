"""Finds techniques by family and name: the built-in ones of the catalogue, and those that other packages bring.

Another package adds a technique by an entry point of the group "umbel.techniques" that is called "family.name" and
names a Technique (docs/techniques.md):

    [project.entry-points."umbel.techniques"]
    "admission.patient" = "patient_admission:ROW"

Names are read from the metadata of installed packages. A package's code is imported when its technique is asked for, or
when a plan lists what it did not take; where that fails, everything else goes on.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from umbel import catalog
from umbel.errors import UsageError, nearest
from umbel.left_out import LEFT_OUT
from umbel.technique import EVERY, NONE, OPEN, OPTIONS, Technique, named

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "umbel.techniques"
_FORGOTTEN = "what one forgets the other cannot read"
_WHY_NOT = {
    "flow": "rows leave no queries where they do not pass",
    "prompt": "what one leaves out the other cannot read",
    "reuse": "documents that rows share are computed and read whole",
}  # why a technique of such a family stands beside no other


def load(family: str, name: str, *parts: Any) -> Any:
    """Make a technique of the `parts` that its family's seam says. Raises UsageError for a name that is not known."""
    return kind(family, name)(*parts)


def kind(family: str, name: str) -> Any:
    """The class (or function) of a technique. Raises UsageError for a name that is not known, and for a technique of
    another package that cannot be imported."""
    row = find(family, name)
    try:
        return row.load()
    except Exception as error:
        if is_built_in(row):
            raise
        raise _broken(_entry(family, name), error) from error


def find(family: str, name: str) -> Technique:
    """The row of a technique. Raises UsageError for a name that is not known, with the nearest that is."""
    for row in catalog.CATALOG:
        if (row.family, row.name) == (family, name):
            return row
    known = names(family)
    if name not in known:
        raise UsageError(f"{family}={name!r}: must be one of {', '.join(known)}{nearest(str(name), known)}")
    return _row(_entry(family, name))


def is_built_in(row: Technique) -> bool:
    """Whether a row is the catalogue's own."""
    return row in catalog.CATALOG


def at(option: str, value: object) -> Technique | None:
    """The technique that the value of an option takes; None where it takes none. Raises UsageError where another
    package's is broken."""
    for row in catalog.CATALOG:
        if row.asked_by(option, value):
            return row
    family = _family(option)
    if value in NONE.get(option, ()) or value not in _added(family):
        return None
    return _row(_entry(family, str(value)))


def takes(option: str, value: object) -> bool:
    """Whether an option may be `value`; other packages are only looked at where no built-in technique has that name."""
    own = any(row.asked_by(option, value) for row in catalog.CATALOG)
    return own or value in NONE.get(option, ()) or value in _added(_family(option))


def why_off(option: str, value: object) -> str:
    """Why no option takes the technique that a value names; "" for one that is not off."""
    row = next((row for row in LEFT_OUT if row.asked_by(option, value)), None)
    return "" if row is None else f"{row.why_not} ({row.paper})"


def is_lossy(option: str, value: str) -> bool:
    """Whether the value of an option takes a technique that may change answers; one that is broken takes none."""
    try:
        row = at(option, value)
    except UsageError:
        return False
    return row is not None and not row.exact


def names(family: str) -> tuple[str, ...]:
    """The techniques of a family: the built-in ones as the catalogue has them, then those of other packages."""
    own = tuple(row.name for row in catalog.CATALOG if row.family == family)
    return (*own, *(name for name in _added(family) if name not in own))


def values(option: str) -> tuple[str, ...]:
    """What an option may be: what takes none of its techniques, then what takes one, as in `names`."""
    own = tuple(value for name, value in (row.option for row in catalog.CATALOG) if name == option)
    return (*NONE.get(option, ()), *own, *(name for name in _added(_family(option)) if name not in own))


def rows(*families: str) -> Iterator[Technique]:
    """The rows of some families (none given: of all): the built-in ones, then those of other packages that can be
    loaded. Only packages that add to these families are imported."""
    yield from (row for row in catalog.CATALOG if not families or row.family in families)
    yield from (row for row in map(_checked, _entries(families)) if isinstance(row, Technique))


def faults(*families: str) -> Iterator[tuple[str, str]]:
    """Techniques of other packages that cannot be used: "family: name", and why."""
    for entry in _entries(families):
        if isinstance(why := _checked(entry), UsageError):
            yield entry.name.replace(".", ": ", 1), str(why)


def lossy(settings: object) -> tuple[Technique, ...]:
    """The techniques that these settings (an EngineConfig) take and that may change answers."""
    own = tuple(row for row in catalog.CATALOG if row.taken_by(settings))
    asked = ((option, getattr(settings, option)) for family, option in OPTIONS.items() if family in OPEN)
    each = ((option, one) for option, value in asked for one in (value if isinstance(value, tuple) else (value,)))
    taken = (row for row in (at(option, value) for option, value in each) if row and row not in own)
    return tuple(row for row in (*own, *taken) if not row.exact)


def _family(option: str) -> str:
    """The family that an option chooses from, if other packages may add to it; else ''."""
    return next((family for family, name in OPTIONS.items() if name == option and family in OPEN), "")


def _added(family: str) -> tuple[str, ...]:
    """Names that other packages add to a family."""
    if family not in OPEN:
        return ()
    found = (entry.name.partition(".") for entry in installed())
    return tuple(dict.fromkeys(name for of, _, name in found if of == family))


@cache
def installed() -> tuple[EntryPoint, ...]:
    """What other packages bring, by name."""
    if not _is_named():
        return ()
    from importlib.metadata import entry_points  # takes longer to import than a small plan to make

    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, _package(entry))))


def _is_named() -> bool:
    """Whether any package on the path of imports may name the group: a look at the files that importlib.metadata reads.
    Archives are not looked into, and may."""
    for folder in sys.path:
        if os.path.isfile(folder):
            return True
        for file in glob.iglob(os.path.join(glob.escape(folder), "*.*-info", "entry_points.txt")):
            with open(file, "rb") as stream:
                if GROUP.encode() in stream.read():
                    return True
    return False


def _entries(families: tuple[str, ...]) -> Iterator[EntryPoint]:
    return (entry for entry in installed() if not families or entry.name.partition(".")[0] in families)


def _checked(entry: EntryPoint) -> Technique | UsageError:
    """The row that an entry point names, or why it cannot be used."""
    try:
        return _row(entry)
    except UsageError as error:
        return error


def _entry(family: str, name: str) -> EntryPoint:
    found = [entry for entry in installed() if entry.name == f"{family}.{name}"]
    if len(found) > 1:
        packages = " and ".join(_package(entry) for entry in found)
        raise UsageError(f"{family}={name!r}: {packages} each bring one; uninstall all but one")
    return found[0]


def _row(entry: EntryPoint) -> Technique:
    """The row that an entry point names, checked."""
    try:
        row = entry.load()
    except Exception as error:
        raise _broken(entry, error) from error
    if not isinstance(row, Technique):
        raise _broken(entry, f"{entry.value} is a {type(row).__name__}, and a umbel.technique.Technique is needed")
    if f"{row.family}.{row.name}" != entry.name:
        raise _broken(entry, f"{entry.value} is the row of {row.family}.{row.name}, and the two names must be equal")
    if row.family not in OPEN:
        raise _broken(entry, f"the family must be one of {', '.join(OPEN)}{nearest(row.family, OPEN)}")
    if (row.family, row.name) in ((own.family, own.name) for own in catalog.CATALOG):
        raise _broken(entry, "that name is a built-in technique's")
    return row


def _broken(entry: EntryPoint, why: object) -> UsageError:
    reason = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else why
    return UsageError(f"technique {entry.name!r} of the package {_package(entry)} cannot be used: {reason}")


def _package(entry: EntryPoint) -> str:
    return "?" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def asked_of(family: str, given: Sequence[str]) -> list[tuple[Technique, str]]:
    """The techniques of a family among those given (EngineConfig.technique), each with how it was asked for."""
    found = ((at("technique", asked), asked) for asked in given)
    return [(row, asked) for row, asked in found if row is not None and row.family == family]


def measure(option: str, given: Sequence[str]) -> Any | None:
    """The Measure (umbel.cost.forget) of the technique among those given that forgets; None where none does."""
    for asked in given:
        if (row := at(option, asked)) is not None and row.family == "forget":
            return named(row.measure)(row.settings_of(asked))
    return None


def for_rows(option: str, given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The techniques among those given that are for some rows, each with whose; with "flow" those that no row may
    leave out: layers that all rows of a step pass, and documents, which rows share."""
    found = ((asked, at(option, asked)) for asked in given)
    rows = ((asked, row) for asked, row in found if row is not None and row.rows)
    return tuple((asked, "flow" if row.family in ("flow", "prompt", "reuse") else row.rows) for asked, row in rows)


def check_together(option: str, given: Sequence[str]) -> None:
    """Raise UsageError for techniques with settings that they do not have, or that exclude each other."""
    by_rows: dict[str, str] = {}
    for asked in given:
        row = at(option, asked)
        try:
            settings = {} if row is None else row.settings_of(asked)
        except ValueError as error:
            raise UsageError(f"{option}={asked!r}: {error}") from None
        if row is None or not settings:
            continue
        if by_rows and EVERY in (row.rows, *by_rows):
            other = next(iter(by_rows.values()))
            families = (row.family, *(name for name in _WHY_NOT if asked_of(name, (other,))))
            why = next((_WHY_NOT[name] for name in families if name in _WHY_NOT), _FORGOTTEN)
            raise UsageError(f"{option}={asked!r} with {other!r}: {why}; give one of them")
        if row.rows in by_rows:
            other = by_rows[row.rows]
            raise UsageError(f"{option}={asked!r} with {other!r}: both say what {row.rows} read; give one of them")
        by_rows[row.rows] = asked
