"""Files and batches of one server, put together: the desk, the worker, plans, and the service that runs their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from umbel.jobs.progress import Progress
from umbel.serve.auth import EVERYONE
from umbel.serve.batches.desk import Desk
from umbel.serve.batches.folder import StoreFolder
from umbel.serve.batches.plans import PlanShelf
from umbel.serve.batches.records import BatchRecord
from umbel.serve.batches.shared_engine import SharedEngine
from umbel.serve.batches.trial_room import TrialRoom
from umbel.serve.batches.worker import BatchWorker
from umbel.serve.service import Service
from umbel.serve.settings import ServeSettings


@dataclass(slots=True)
class Office:
    """What endpoints of files and batches need."""

    service: Service
    desk: Desk
    worker: BatchWorker
    plans: PlanShelf

    @classmethod
    def open(cls, service: Service, store: Path) -> Office:
        """The office of a service, with its files in a folder. Raises UsageError."""
        llm, settings, trials = service.llm, service.settings, TrialRoom()

        def engine(look: Callable[[], None], owner: str) -> SharedEngine:
            tenant = None if owner == EVERYONE else owner
            return SharedEngine(service, llm.plan_for, llm.stats, look, llm.config.seed, tenant, trials)

        desk = Desk.open(StoreFolder(store), settings.limits.store)
        worker = BatchWorker(desk, replace(settings, config=llm.config), service.options, engine)
        return cls(service, desk, worker, PlanShelf(worker))

    @property
    def settings(self) -> ServeSettings:
        """What the server was asked to be."""
        return self.service.settings

    @property
    def model(self) -> str:
        """The name of the model that answers batches."""
        return self.settings.names[0]

    def waits_for(self, batch: BatchRecord) -> Mapping[str, Any] | None:
        """What keeps the rows of a batch from running."""
        return self.worker.queue.waits_for(batch, self.service.live)

    def progress(self, batch: BatchRecord) -> Progress | None:
        """How far the job of a batch is, while it runs."""
        job = self.worker.jobs.get(batch.id)
        return None if job is None else job.progress

    def plan(self, batch: BatchRecord, form: str, *, verbose: bool) -> str:
        """The plan of a batch as text, JSON or a page. Raises UmbelError."""
        return self.plans.plan(batch, form, verbose=verbose)

    def start(self) -> None:
        """Go on with the batches that are not done; the service must have begun."""
        self.worker.start()

    def close(self) -> None:
        """Stop working, and let another server use the store."""
        self.worker.close()
        self.desk.close()
