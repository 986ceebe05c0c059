"""What a plan or a report is of: job, model, machine, version, date and command."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from umbel.config import readable
from umbel.cost.machine import Machine, processor_model


@dataclass(frozen=True, slots=True)
class About:
    """Facts of a plan or a run, as text; "" where one is not known.

    `job`: the input, and the output where there is one.
    `model`: as it was named.
    `machine`: the device and the processor's model; never the name of the host, as pages are passed on.
    `version`: of Umbel.
    `date`: UTC, to the second.
    `command`: as typed, ready for a shell.
    """

    job: str
    model: str
    machine: str
    version: str
    date: str
    command: str

    @classmethod
    def now(cls, job: str, model: str, machine: str, typed: Sequence[str] = ()) -> About:
        """The facts of a plan or run that is made now; `typed` are the words behind `umbel`."""
        from importlib.metadata import version  # takes longer to import than a small plan to make

        date = datetime.fromtimestamp(time.time(), timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        command = shlex.join(["umbel", *typed]) if typed else ""
        return cls(readable(job), readable(model), machine, version("umbel"), date, readable(command))

    def as_dict(self) -> dict[str, str]:
        """The facts as one JSON object."""
        return asdict(self)


def machine_words(machine: Machine) -> str:
    """A machine for people: a GPU with where its rates are from, or this processor."""
    return f"{machine.name} ({machine.source})" if machine.on_gpu else processor_words()


def processor_words() -> str:
    """This machine's processor and cores."""
    return f"CPU {processor_model()}, {os.cpu_count()} cores"
