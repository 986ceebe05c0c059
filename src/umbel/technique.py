"""One row of the catalogue: what a technique is called, whether it is exact, where it is loaded from, who found it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from types import MappingProxyType
from typing import Any

from umbel.errors import nearest

# The option of EngineConfig that chooses among the techniques of a family, by name; "watchers" and "technique" take
# several.
OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "prefix": "prefix",
        "admission": "admission",
        "linear": "linear",
        "kv": "kv_cache_dtype",
        "attention": "attention_backend",
        "watcher": "watchers",
        "keep": "keep",
        "drafter": "speculate",
        "executor": "executor",
        "select": "technique",
        "forget": "technique",
        "flow": "technique",
        "reuse": "technique",
        "prompt": "technique",
    }
)
# The values of an option that take none of its techniques.
NONE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "prefix": ("none",),
        "linear": ("dense",),
        "kv_cache_dtype": ("auto",),
        "attention_backend": ("auto",),
        "keep": ("auto",),
        "speculate": ("auto", "off"),
    }
)
# What takes a technique that no option takes.
WITHOUT_OPTION = ("planner", "policy", "machine", "always")
# Families that the engine loads by name, so that other packages may add to them.
OPEN = ("admission", "queue", "keep", "victim", "linear", "attention", "watcher", "drafter")

# What attention of a model's layers may be, and not every backend takes: layers that differ in heads, sizes or windows;
# capped scores; sinks; values of other sizes than keys, or that are a part of them.
FEATURES = ("mixed", "caps", "sinks", "unequal")
EVERY = "all"  # what a technique of `rows` picks for that can stand beside no other
FLOATS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Capability:
    """What a backend of attention can do. Of fields that list what it takes, an empty one takes everything.

    `dtypes` are those of queries, keys and values, `head_dims` sizes of a head, `windows` whether it takes a sliding
    one. `features` are what else it takes, of FEATURES (none, where it is empty). `fp8_kv`: whether keys and values may
    be fp8: "always", "with instructions" for it on the device, or "never"; `int8_kv`: whether they may be int8.
    `selects`: whether it obeys a View. `page_tokens`: pages must be of a multiple of so many tokens; 1 reads any run.
    `records`: whether its steps can be recorded and launched again (`runner/graphs.py`). `package`: what must be
    installed, and the first version that is known to fit. `reproducible`: whether the last bits of a row's answer are
    the same "per row", whatever else is in the step, only "per step", or "unknown".
    """

    devices: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = FLOATS
    head_dims: tuple[int, ...] = ()
    windows: bool = True
    features: tuple[str, ...] = ()
    fp8_kv: str = "never"
    int8_kv: bool = False
    page_tokens: int = 1
    package: tuple[str, str] | None = None
    selects: bool = False
    records: bool = False
    reproducible: str = "per step"

    def elsewhere(self, device: str) -> str:
        """Why it cannot run on a kind of device, '' where it can."""
        if not self.devices or device in self.devices:
            return ""
        return f"it runs on {' and '.join(self.devices)}, and this is {device}"


@dataclass(frozen=True, slots=True)
class ShareSetting:
    """A setting of a technique that is a share: above 0, and at most 1. `says` what of; `tries` are what the lab
    measures where nothing else is asked for."""

    name: str
    default: float
    says: str
    tries: tuple[float, ...] = (0.5, 0.25, 0.1)

    def read(self, text: str) -> float:
        """The value that a text gives; raises ValueError for one that is none."""
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{self.name}={text!r}: must be a number ({self.says})") from None
        if not 0 < value <= 1:
            raise ValueError(f"{self.name}={text}: must be above 0 and at most 1 ({self.says})")
        return value


@dataclass(frozen=True, slots=True)
class CountSetting:
    """A setting of a technique that is a whole number of at least 1. `says` what of; `tries` as of a ShareSetting."""

    name: str
    default: float
    says: str
    tries: tuple[int, ...] = ()

    def read(self, text: str) -> float:
        """The value that a text gives; raises ValueError for one that is none."""
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"{self.name}={text!r}: must be a whole number of at least 1 ({self.says})")
        return int(text)


@dataclass(frozen=True, slots=True)
class Technique:
    """A technique of a `family`, by name. `exact`: the tokens are those of one plain request at a time.

    `loads` is "module:name", imported when the technique is used, and called with what the seam of the family says
    (docs/techniques.md); `paper` names its source, with the arXiv number; `can` is what a backend of attention can do.

    `by` says what takes it. Empty: the option of its family (OPTIONS), by its name. "option=value": that value (of a
    number, any value of at least that). Else the "planner" in the pass that has the family's name, a "policy" of the
    scheduler that names it, the "machine" where it has what is needed, or nothing has to ("always"). A lossy technique
    is taken by an option only.

    `says` is the reason that a plan gives for it, in which {overflow} and {ceiling} stand for the accepted probability
    of a full pool and the tokens expected to be in use. `why_not` is why a plan left it. `argument` is what follows its
    name in the option, behind a colon: "model:PATH"; with `by`, what stands there for any value. `settings` may stand
    there instead, as "NAME=VALUE" with commas between; `rows` says for whose rows a technique picks, of which
    there may be one for each kind; one that forgets, or a flow, for EVERY row, leaves nothing to others to pick from,
    and its `measure` (as `loads`) says how much stays, or how many layers are passed.
    """

    family: str
    name: str
    exact: bool
    loads: str
    paper: str = ""
    needs: str = "any model, any machine"
    by: str = ""
    says: str = ""
    why_not: str = ""
    can: Capability | None = None
    argument: str = ""
    settings: tuple[ShareSetting | CountSetting, ...] = ()
    rows: str = ""
    measure: str = ""

    @property
    def option(self) -> tuple[str, str]:
        """The option that takes it and the value, as texts; two empty ones where none does."""
        if not self.by:
            named = f"{self.name}:{self.argument}" if self.argument else self.name
            return (OPTIONS[self.family], named) if self.family in OPTIONS else ("", "")
        name, _, value = self.by.partition("=")
        return (name, value) if value else ("", "")

    def taken_by(self, settings: object) -> bool:
        """Whether these settings (an EngineConfig) take it by an option."""
        name, value = self.option
        asked = getattr(settings, name) if name else ()
        if isinstance(asked, int):
            return asked >= int(value)
        return any(self.asked_by(name, one) for one in (asked if isinstance(asked, tuple) else (asked,)))

    def asked_by(self, option: str, value: object) -> bool:
        """Whether this value of an option takes it, with any argument where it has one."""
        if self.by and self.argument:  # which may be anything
            return option == self.option[0] and value is not None
        name, _, argument = str(value).partition(":")
        if self.settings:
            return self.option == (option, name)
        return self.option == (option, f"{name}:{self.argument}" if self.argument and argument else value)

    def settings_of(self, asked: str) -> dict[str, float]:
        """The settings that "NAME:setting=value,..." gives, with defaults for the others. Raises ValueError for one
        that the technique does not have, or a value that it cannot be."""
        known = {setting.name: setting for setting in self.settings}
        found = {name: setting.default for name, setting in known.items()}
        for one in filter(None, asked.partition(":")[2].split(",")):
            name, _, text = one.partition("=")
            if name not in known:
                raise ValueError(
                    f"{name!r} is no setting of {self.name}{nearest(name, known)}; it has {', '.join(known)}"
                )
            found[name] = known[name].read(text)
        return found

    def load(self) -> Any:
        """What `loads` names: a class or a function. Raises what the import of its module raises."""
        return named(self.loads)


def named(place: str) -> Any:
    """What "module:name" names, imported."""
    module, _, name = place.partition(":")
    return reduce(getattr, name.split("."), import_module(module))
