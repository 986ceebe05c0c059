"""`Replicas`: an LLM whose rows are answered by several processes, each with the whole model."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from umbel import errors, registry
from umbel.cluster.crew import Crew
from umbel.cluster.deal import Deal
from umbel.cluster.executor import Event, Executor
from umbel.cluster.frames import Kind, decode_answer, encode_places, encode_rows
from umbel.cluster.model_files import ModelFiles
from umbel.cluster.nodes import Needs, check_nodes, digest_of, is_file
from umbel.cluster.settings import check_replicas
from umbel.config import EngineConfig
from umbel.cost.history import History
from umbel.cost.known import Known
from umbel.cost.machine import Machine
from umbel.cost.shape import Shape
from umbel.engine.intake import Intake
from umbel.engine.scoring import Scoring
from umbel.errors import UmbelError, UsageError
from umbel.ir.plan import Plan
from umbel.ir.report import Stats
from umbel.ir.request import Output, RowError
from umbel.ir.selection import select_rows
from umbel.ir.tally import ReplicaTally
from umbel.ir.workload import Workload
from umbel.plan.deal.shared_plan import SharedPlan, plan_replicas
from umbel.plan.planner import make_plan

_LOG = logging.getLogger(__name__)
MOST_UNLOADED = 4  # losses of a replica in a row, before it is loaded, after which others go on without it


class Replicas(Scoring):
    """`data_parallel_size` replicas of a model, used like an `LLM`: a GPU for each, or a part of the processor; of this
    machine, or of those of a Ray cluster (`executor`).

    Answers are those of one replica: a row's randomness is keyed by its number in the whole input. A replica that dies,
    or hangs, is started again, and its rows go to those that are free; a row that ends replicas gets an error, code
    "replica_died" or "replica_hung". `threads` are those of each; None: an equal part of all. Raises UsageError for
    options that do not go together, and what loading raises.
    """

    def __init__(self, model: str | EngineConfig, **options: Any):
        """`model` and options as those of an LLM, or all of them as one record."""
        self.config = model if isinstance(model, EngineConfig) else EngineConfig.of(model, **options)
        check_replicas(self.config)
        self.intake = Intake(ModelFiles.of(self.config))
        self.first_token: float | None = None
        self._planned = 0  # prompt tokens that the rows asked for so far need
        self.pool = _executor(self.config)
        self._unloaded: dict[int, int] = {}  # how often in a row each was lost before it was loaded
        self.crew = Crew(self.config.data_parallel_size, mixed=self.config.mixed_replicas)
        self._next_lot, self._turn = 1, 0
        self._check_nodes()
        self._machine, self._each = self._load()

    def plan_for(self, workload: Workload) -> Plan:
        """The plan of all rows, with those of each replica and the seconds of the one that takes longest."""
        known = self._known()

        def plan(rows: Workload) -> Plan:
            each, asked = self._each, self.config.dtype
            return make_plan(rows, self.spec, each, self._machine, loaded=True, known=known, asked_dtype=asked)

        return plan_replicas(workload, self.config.data_parallel_size, plan, mixed=self.config.mixed_replicas)

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        """Run a workload, as `LLM.execute`. Closing the generator ends the replicas; they are started again for the
        next rows."""
        if len(workload) == 0:
            return
        if not isinstance(plan, SharedPlan):
            plan = self.plan_for(workload)
        assert isinstance(plan, SharedPlan)
        self._planned += plan.estimates.computed_prompt_tokens
        deal, whole = Deal(plan.shares, plan.least, self._next_lot), False
        try:
            self.crew.start(self.pool.start())
            self.crew.begin()
            self._give(deal, workload)
            yield from self._results(deal, workload)
            whole = True
        finally:
            self.crew.end()
            self._next_lot = deal.next_number
            if not whole:
                self.stop(patience=0.0)

    def stats(self) -> Stats:
        """Sums over all replicas, live to half a second; the KV peak is the highest of one of them."""
        return replace(self.crew.stats(), planned_prompt_tokens=self._planned)

    def replicas(self) -> tuple[ReplicaTally, ...]:
        """What each replica has done so far, live as `stats`."""
        return self.crew.tallies()

    def close(self) -> None:
        """End the processes, and a cluster that was started for them; the next rows start local ones again."""
        self.stop()
        self.pool.close()

    def stop(self, patience: float = 10.0) -> None:
        """End the processes."""
        self.pool.stop(patience)
        for replica in range(self.config.data_parallel_size):
            self.crew.leave(replica)

    def _load(self) -> tuple[Machine, EngineConfig]:
        """Start all replicas and wait until each is loaded or lost, or where they may come later until one is loaded;
        returns the machine that one plans for, and its settings.

        Where some load, those that do not are left out for now: they are started once more when rows come.
        """
        self.crew.start(self.pool.start())
        told: dict[str, Any] = {}
        lost: list[Event] = []
        for event in self.pool.results():
            if event.kind is Kind.FAILED:
                self.pool.close()
                raise _error(event.data)
            if event.kind is None:
                lost.append(event)
                self.crew.lose(event.replica, 0)
                _warn(event, "while it loaded the model")
            elif event.kind is Kind.READY:
                said = self._join(event)
                told = told or said
            elif event.kind is Kind.WANT:
                self.crew.want(event.replica)
            awaited = 1 if self.pool.can.elastic and told else self.config.data_parallel_size - len(lost)
            if len(self.crew.ready) >= awaited:
                break
        if not told:
            self.pool.close()
            raise UmbelError(f"replica {lost[-1].replica} {lost[-1].data.decode()} while it loaded the model")
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in told["machine"].items()}
        return Machine(**values), replace(self.pool.settings, dtype=told["dtype"])

    def _check_nodes(self) -> None:
        """Raise UsageError where the machines that replicas may run on cannot take them."""
        nodes, each, spec = self.pool.nodes(), self.pool.settings, self.spec
        if not nodes:
            return
        model = digest_of(self.intake.model.directory) if is_file(each.model) else ""
        n_gpus = 0 if each.device == "cpu" else each.tensor_parallel_size
        n_bytes = Shape.of(spec, each.dtype if each.dtype != "auto" else spec.dtype).weight_bytes // max(n_gpus, 1)
        needs = Needs(self.config.data_parallel_size, each.model, model, n_bytes, self.config.mixed_replicas, n_gpus)
        try:
            check_nodes(nodes, needs)
        except UmbelError:
            self.pool.close()
            raise

    def _join(self, event: Event) -> dict[str, Any]:
        """Take in a replica that is loaded; returns what it told. Raises UmbelError, and ends all, where its answers
        would be others than those of the first."""
        try:
            return self.crew.join(event)
        except UmbelError:
            self.stop(patience=0.0)
            raise

    def _results(self, deal: Deal, workload: Workload) -> Iterator[Output]:
        if deal.over:
            return
        for event in self.pool.results():
            if event.kind is Kind.ANSWER and deal.has(event.replica, event.lot):
                output = decode_answer(event.data)
                if (row := deal.answered(event.lot, output.row)) is not None:
                    self.crew.answered(event.replica)
                    yield replace(output, row=row)
                self._drop_unwanted(deal)
            elif event.kind is None:
                yield from self._given_up(deal, event, workload)
            elif event.kind is not Kind.ANSWER:
                self._take(deal, event)
                self._give(deal, workload)
            if deal.over:
                return

    def _take(self, deal: Deal, event: Event) -> None:
        """Handle a frame that is not an answer."""
        if event.kind is Kind.FAILED:
            raise _error(event.data)
        if event.kind is Kind.READY:
            self._join(event)
            return
        if event.kind is Kind.WANT:
            self.crew.want(event.replica)
            return
        told = json.loads(event.data)
        self.crew.told(event.replica, Stats(**told["stats"]))
        first = told["first_token"]
        if first is not None and self.pool.can.machines:  # by the clock of another machine
            first = time.monotonic()
        if first is not None:
            self.first_token = first if self.first_token is None else min(first, self.first_token)
        if event.kind is Kind.DONE and deal.has(event.replica, event.lot):
            deal.done(event.lot)
            self.crew.done(event.replica, event.lot)

    def _give(self, deal: Deal, workload: Workload) -> None:
        """Send lots to those that want some; rows that others run too to one at a time, as that takes a look at all."""
        wanting, self._turn = sorted(self.crew.wanting), self._turn + 1
        for place, replica in enumerate(wanting):
            stolen, doubled = deal.stolen, deal.doubled
            double = place == self._turn % len(wanting)
            if (given := deal.give(replica, double=double)) is not None:
                self.crew.give(replica, given[0], stolen=deal.stolen > stolen, doubled=deal.doubled - doubled)
                self.pool.submit(replica, given[0], encode_rows(select_rows(workload, given[1])))

    def _drop_unwanted(self, deal: Deal) -> None:
        """Tell replicas which of their rows others have answered."""
        unwanted, deal.unwanted = deal.unwanted, []
        for replica, (lot, place) in unwanted:
            self.pool.drop(replica, lot, encode_places([place]))

    def _given_up(self, deal: Deal, event: Event, workload: Workload) -> Iterator[Output]:
        """Replace a replica that is lost: start it again, give its rows to idle ones, fail the rows that are given up.

        One that could not even load is not started again while others go on, but for machines that come and go: there
        it may be lost a few times.
        """
        loaded, how = event.replica in self.crew.ready, event.data.decode()
        unloaded = 0 if loaded else self._unloaded.get(event.replica, 0) + 1
        self._unloaded[event.replica] = unloaded
        _warn(event, "its rows go to those that are free" if loaded else "while it loaded the model")
        before = deal.dealt_again
        lost = deal.died(event.replica, how)
        self.crew.lose(event.replica, deal.dealt_again - before)
        if unloaded <= (MOST_UNLOADED if self.pool.can.elastic else 0) or not self.pool.processes:
            self.crew.start(self.pool.start())
        self._give(deal, workload)
        for row in lost:
            message = f"each process that ran this row was lost: the last one {how}; the row was alone in it"
            error = RowError("replica_hung" if event.hung else "replica_died", message, type="server_error", status=500)
            yield Output(row, int(workload.offsets[row + 1] - workload.offsets[row]), error=error)

    def _known(self) -> Known:
        """The history of earlier runs of a replica."""
        config = self._each
        history = History.of(self.spec, self.intake.model.directory, config.cost_key, self._machine, config.threads)
        if config.load_format == "dummy":
            history = replace(history, lengths=None)
        return history.load()


def _executor(config: EngineConfig) -> Executor:
    """What holds the replicas. Raises UsageError where its package is not installed."""
    try:
        pool: Executor = registry.load("executor", config.executor, config)
    except ModuleNotFoundError as error:
        if error.name != config.executor:
            raise
        raise UsageError(
            f"executor={config.executor!r}: the package {error.name!r} is not installed: "
            f"pip install 'umbel[{config.executor}]'"
        ) from None
    return pool


def _warn(event: Event, what: str) -> None:
    _LOG.warning("umbel: replica %d %s: %s", event.replica, event.data.decode(), what)


def _error(data: bytes) -> UmbelError:
    """The error that a replica reported, as if it had been raised here."""
    told = json.loads(data)
    kind = getattr(errors, told["error"], UmbelError)
    return kind(told["message"]) if kind is not errors.InvalidRequest else UmbelError(told["message"])
