"""The engine of this process: a loaded model that plans workloads and runs them, one loop for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from umbel.config import EngineConfig
from umbel.cost.devices import joined, shared_by
from umbel.cost.history import History
from umbel.cost.machine import Machine
from umbel.cost.quantised import price_of
from umbel.engine.build import Model, build_loop, build_runner, build_store, plan_workload, prepare_drafter
from umbel.engine.cutting import CutArrivals, check_cut, open_cut
from umbel.engine.device import machine_of
from umbel.engine.loop import Loop
from umbel.engine.outlook import Outlook
from umbel.engine.shelving import StoredBlocks
from umbel.engine.splicing import CopyTally, load_copies
from umbel.engine.succession import Succession
from umbel.errors import UsageError
from umbel.ir.arrivals import Arrivals
from umbel.ir.cut_workload import CutWorkload
from umbel.ir.load_count import LoadCount
from umbel.ir.plan import Plan
from umbel.ir.report import Left, Stats
from umbel.ir.request import Output
from umbel.ir.spans import NO_SPANS, Spans
from umbel.ir.spec import ModelSpec
from umbel.ir.stops import Place, Stops, Unstopped
from umbel.ir.tally import ReplicaTally
from umbel.ir.workload import Workload
from umbel.kv.store import KVStore
from umbel.plan.passes.speculate import LOOKUP
from umbel.plan.passes.stored import seconds_of_block
from umbel.plan.reuse import reuses
from umbel.plan.session import SessionPlanner
from umbel.runner.base import Runner
from umbel.sched.phases.documents import start_placing
from umbel.sched.phases.reload import start_reloading


class LocalEngine:
    """One model on the device of this process, or on a `runner` that is given instead of it.

    `spans_of` gives what the steps of the loaded model report their time to. `share`: this process is one of so many
    that share the processor. `count`: what of the weights is there while they are loaded. Raises UsageError for
    settings that this machine cannot meet, ModelError for a model that cannot be loaded.
    """

    def __init__(
        self,
        config: EngineConfig,
        spans_of: Callable[[Model], Spans] | None = None,
        runner: Runner | None = None,
        share: int = 1,
        count: LoadCount | None = None,
    ):
        if config.replicated:
            raise UsageError("data_parallel_size, executor: an LLM is one replica; use umbel.cluster.replicas.Replicas")
        self.keeps_unfinished = True
        self.model = Model(_with_room_of(runner, config), computes=runner is None, count=count)
        check_cut(self.model.config, self.model.spec)
        reserved = prepare_drafter(self.model)  # before the memory that is left is looked at
        self._cut = open_cut(self.model)
        machine = machine_of(self.model.device)
        machine = machine.with_memory(max(machine.memory_bytes - reserved, 0))
        self.machine = shared_by(joined(machine, config.tensor_parallel_size), share)
        self.history = _history(self.model, self.machine)
        self._first_token: float | None = None
        self._given = runner
        self.loops: list[Loop] = []  # that run now
        self._past, self._copied = Stats(), CopyTally()
        self._store: KVStore | None = None
        self._outlook = Outlook()
        self._spans = NO_SPANS if spans_of is None else spans_of(self.model)
        self._closed = False

    @property
    def spec(self) -> ModelSpec:
        """The model's shape."""
        return self.model.spec

    @property
    def reuses(self) -> bool:
        """Whether documents of prompts are computed apart."""
        return bool(reuses(self.model.config))

    @property
    def first_token(self) -> float | None:
        """When the first of all tokens was there, on the clock of time.monotonic; None before that."""
        return self._first_token or next((loop.first_token for loop in self.loops if loop.first_token), None)

    def plan_for(self, workload: Workload) -> Plan:
        """What `execute` would do with a tokenised workload."""
        known, shelf = self.history.load(), self.model.shelf
        known = known if shelf is None else replace(known, stored=shelf.stored)
        return plan_workload(self.model, workload, self.machine, known)

    def planner(self) -> SessionPlanner:
        """Plans what comes while other rows run."""
        config, asked = self.model.config, self.model.asked_dtype
        return SessionPlanner.of(self.spec, config, self.machine, self.history.load(), asked)

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        """Run a tokenised workload whose rows are valid, by its plan; Outputs come as rows finish. One at a time."""
        if len(workload) == 0:
            return
        workload, plan = self._cut_down(workload, plan)
        with self.running(plan) as loop:
            loop.add(workload, plan)
            while loop.busy:
                self._outlook.look(loop)
                yield from loop.outputs()

    def execute_all(
        self,
        arrivals: Arrivals,
        stops: Stops | None = None,
        unwanted: Callable[[], Iterable[Place]] = tuple,
    ) -> Iterator[tuple[int, Output]]:
        """Run workloads as they come, by their plans: the next one begins before the one before it has ended. Outputs
        come as rows finish, each with the number of its workload and its row there, until `stops` ends them; but for
        rows that are `unwanted` by then, which is asked between steps."""
        arrivals = arrivals if self._cut is None else CutArrivals(arrivals, self._cut_down)
        succession = Succession(arrivals, self._learn_so_far, self._outlook.look, stops or Unstopped(), unwanted)
        while (plan := succession.plan()) is not None:
            with self.running(self._roomier(plan) if arrivals.several else plan) as loop:
                yield from succession.run(loop)

    def _cut_down(self, workload: Workload, plan: Plan | None) -> tuple[Workload, Plan]:
        """A workload without what a technique leaves out of its prompts, and its plan."""
        cut = workload if self._cut is None else self._cut.cut(workload)
        self._past = self._past.plus(Stats(left_out_tokens=cut.left_out if isinstance(cut, CutWorkload) else 0))
        return cut, plan if plan is not None and cut is workload else self.plan_for(cut)

    def _roomier(self, plan: Plan) -> Plan:
        """The plan with a pool that two workloads of its kind fit, as far as memory allows."""
        most = max(plan.kv_tokens, self.planner().plan.kv_tokens)
        return replace(plan, kv_tokens=min(2 * plan.kv_tokens, most))

    @contextmanager
    def running(self, plan: Plan, queue: str = "plan", tbt: float | None = None) -> Iterator[Loop]:
        """A loop without rows, with a pool of the plan's size; `queue` is the rule by which rows are next, `tbt` the
        seconds that a step may take while a row streams. When it ends, what is left in it is abandoned and what it has
        taught is kept."""
        if self._closed:
            raise UsageError("this LLM is closed: make another one")
        spans, known = self._spans, self.history.load()
        store = None if self._given else build_store(self.model, plan.kv_pages, plan.page_size, self._take_store())
        runner = self._given or build_runner(self.model, store, spans)
        price = price_of(self.spec, self.model.config, self.machine, known.calibration)
        loop = spans.lap("building", build_loop(self.model, plan, runner, known, spans, price, queue, tbt))
        if self.model.shelf is not None and store is not None:
            start_reloading(loop.scheduler, StoredBlocks(self.model.shelf, store, seconds_of_block(price)))
        asked = self.model.config.technique
        if store is not None and (copies := load_copies(asked, self.spec, store, self._copied)) is not None:
            start_placing(loop.scheduler, copies)
        self.loops.append(loop)
        try:
            yield loop
        finally:
            self._outlook.over()
            self._store = store
            self.loops.remove(loop)
            self._past = self._past.plus(loop.stats())
            if self.model.shelf is not None:
                self.model.shelf.note_reads()
            self._first_token = self._first_token or loop.first_token
            spans.lap("learning", self._learn(loop))

    def _learn(self, loop: Loop) -> None:
        """Keep what a loop has taught since its meter was clear."""
        prior = price_of(self.spec, self.model.config, self.machine).prior()
        lengths, speculate = loop.scheduler.lengths, loop.scheduler.speculate
        self.history.learn(loop.meter, lengths.bank(), prior)
        if speculate is not None:
            name = LOOKUP if self.model.config.speculate == "auto" else self.model.config.speculate
            if name == LOOKUP:
                self.history.learn_offers(lengths.by_template(speculate.depth.bank()))
            self.history.learn_laws(name, lengths.by_template(speculate.depth.laws()))

    def _learn_so_far(self, loop: Loop) -> None:
        self._learn(loop)
        loop.meter.clear()

    def stats(self) -> Stats:
        """Totals over everything this object has run, live."""
        keys, loads, layers = self.model.keys, self.model.adapter_loads, self.model.layers
        read = 0 if self.model.shelf is None else self.model.shelf.read_tokens
        whole = round(keys.whole)
        passed = {"layers_passed": layers.passed, "layers_whole": layers.whole}
        passed |= {"copied_prompt_tokens": self._copied.tokens}
        total = self._past.plus(
            Stats(adapter_loads=loads, keys_read=round(keys.read), keys_whole=whole, read_prompt_tokens=read, **passed)
        )
        for loop in list(self.loops):
            total = total.plus(loop.stats())
        return total

    def replicas(self) -> tuple[ReplicaTally, ...]:
        """None: there is one."""
        return ()

    def left(self) -> Left:
        """What the rows that were given to it have left to do, as of half a second ago; from any thread."""
        return self._outlook.left() if self.loops else Left(seconds=0.0)

    def close(self) -> None:
        """Give the memory of the model and its KV back; nothing can be run any more."""
        self._closed, self._store = True, None
        if self._given is not None:
            self._given.close()
        self.model.close()

    def _take_store(self) -> KVStore | None:
        """The KV memory of the last run, for the next one: allocating that much again costs seconds a gigabyte."""
        store, self._store = self._store, None
        return store


def _with_room_of(runner: Runner | None, config: EngineConfig) -> EngineConfig:
    """Settings that ask a given runner for no more KV than it says that it holds."""
    pages, size = getattr(runner, "n_pages", None), getattr(runner, "page_size", config.page_size)
    if pages is None or config.kv_tokens is not None:
        return config
    return replace(config, kv_tokens=pages * size, page_size=size)


def _history(model: Model, machine: Machine) -> History:
    """The history of a loaded model; random weights say nothing about how long the model's answers are."""
    config = model.config
    history = History.of(model.spec, model.directory, config.cost_key, machine, config.threads)
    return history.without_lengths() if config.load_format == "dummy" else history
