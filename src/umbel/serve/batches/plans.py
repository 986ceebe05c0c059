"""Plans of batches as `umbel plan` shows them, made when they are asked for; the last ones are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from umbel.batch.plan_view import PlanView
from umbel.batch.planned import PlanAim, plan_job
from umbel.models.families import read_spec, resolve_model
from umbel.plan.explain.page import plan_page
from umbel.serve.batches.batch_job import options_of
from umbel.serve.batches.records import BatchRecord
from umbel.serve.batches.worker import BatchWorker

KEPT = 8
_LINE = 400  # characters, which pages break themselves


@dataclass(slots=True)
class PlanShelf:
    """Plans of the batches of a worker, by id; one is made at a time."""

    worker: BatchWorker
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _kept: OrderedDict[str, PlanView] = field(default_factory=OrderedDict)

    def plan(self, batch: BatchRecord, form: str, *, verbose: bool) -> str:
        """The plan of a batch as "text" (in a dozen lines, unless `verbose`), "json" or "html". Raises UmbelError."""
        with self._turn:
            view = self._view(batch)
        if form == "json":
            return view.as_json()
        if form == "html":
            return plan_page(view.record, view.text(), f"Plan of {batch.id}", view.head(_LINE))
        return view.text() if verbose else view.brief()

    def _view(self, batch: BatchRecord) -> PlanView:
        if (found := self._kept.get(batch.id)) is None:
            worker, config = self.worker, self.worker.settings.config
            asked = options_of(worker.settings, worker.reading, worker.prepared(batch))
            directory = resolve_model(config.model)
            spec = read_spec(directory, config.model_impl, config.generation_config)
            found = plan_job(asked, PlanAim(spec, directory), words=True)
            self._kept[batch.id] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(batch.id)
        return found
