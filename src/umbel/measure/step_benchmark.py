"""Times steps of a model's shape with random weights on the real runner, so that plans know how long its steps take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umbel.config import EngineConfig
from umbel.cost.calibration import Calibration
from umbel.cost.history import History
from umbel.cost.known import Known
from umbel.cost.machine import available_memory
from umbel.cost.quantised import as_kept, price_of
from umbel.cost.shape import Shape
from umbel.engine.build import Model, build_loop, build_runner, build_store, plan_workload
from umbel.engine.device import machine_of, pick_device
from umbel.errors import CapacityError
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.measure.probe import PAGE_SIZE, Timed, fitting, time_probes
from umbel.models.families import read_spec
from umbel.models.weights import pick_dtype

HELD_OUT = 4  # one probe of so many is not fitted but predicted
KV_SHARE = 8  # of the free memory, KV for probes may take one part in so many
SMALL_JOB = (16, 12)  # rows, and tokens that each of them says


@dataclass(frozen=True, slots=True)
class Findings:
    """The results of a benchmark of steps.

    `timed`: the probes and their seconds.
    `held`: `[probes]`, which of them were held out of the fit.
    `expected`: `[probes]`, seconds by the fit to the others.
    `job_expected`, `job_seconds`: a small job whose prompts share a beginning: seconds by a plan after a fit to all
        probes, and the seconds that it took.
    """

    timed: Timed
    held: NDArray[np.bool_]
    expected: NDArray[np.float64]
    job_expected: float
    job_seconds: float

    @property
    def errors(self) -> NDArray[np.float64]:
        """Relative errors of the steps that were held out."""
        return np.abs(self.expected / self.timed.seconds - 1)[self.held]


class StepBenchmark:
    """Loads the shape of the model that `config` names. Raises CapacityError when it does not fit the memory."""

    def __init__(self, config: EngineConfig, directory: Path):
        spec = read_spec(directory, config.model_impl)
        kept = as_kept(spec, config.linear, on_gpu=False)
        device = pick_device(config.device)
        dtype = str(pick_dtype(config.dtype, spec, device)).removeprefix("torch.")
        needed = Shape.of(kept, dtype).weight_bytes
        if device.type == "cpu" and needed > available_memory():
            raise CapacityError(f"the weights take {needed / 1e9:.1f} GB; {available_memory() / 1e9:.1f} GB are free")
        self.model = Model(replace(config, load_format="dummy"))
        self.machine = machine_of(self.model.device)
        config = self.model.config
        self.history = History.of(spec, self.model.directory, config.cost_key, self.machine, config.threads)
        self.price = price_of(spec, config, self.machine)

    def run(self, seconds: float) -> Findings:
        """Time probes for about `seconds`, fit them, and predict those held out and a small job. The fit replaces the
        model's history."""
        timed, prior = self._time(seconds), self.price.prior()
        held = np.arange(len(timed.probes)) % HELD_OUT == HELD_OUT // 2
        start = Calibration.start(prior)
        fitted = timed.pick(~held)
        expected = start.learn(fitted.load, fitted.seconds).each(timed.load)
        self.history.learn_steps(timed.load, timed.seconds, prior, restart=True)
        job = self._run_job(start.learn(timed.load, timed.seconds))
        return Findings(timed, held, expected, *job)

    def _time(self, seconds: float) -> Timed:
        spec, kv_bytes = self.model.spec, self.price.shape.kv_bytes
        pages = self.machine.memory_bytes // KV_SHARE // (kv_bytes * PAGE_SIZE)
        probes = fitting(spec, self.price, pages, seconds)
        store = build_store(self.model, max(p.pages for p in probes), PAGE_SIZE)
        runner = build_runner(self.model, store)
        for slab in (*store.keys, *store.values):
            slab.zero_()  # what lies in fresh memory may be numbers that processors are slow with
        return time_probes(runner, probes, spec, seconds)

    def _run_job(self, fit: Calibration) -> tuple[float, float]:
        """Plan and run the small job; returns (expected, measured) seconds."""
        rows, tokens = SMALL_JOB
        width = self.model.spec.vocab_size
        own = [[(r * 31 + i) * 7 % width for i in range(10 + 3 * r)] for r in range(rows)]
        params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
        workload = Workload.of([[i % width for i in range(64)] + each for each in own], params)
        plan = plan_workload(self.model, workload, self.machine, Known(calibration=fit))
        runner = build_runner(self.model, build_store(self.model, plan.kv_pages, plan.page_size))
        loop = build_loop(self.model, plan, runner)
        loop.add(workload, plan)
        for _ in loop.run():
            pass  # only the time counts
        self.history.learn_steps(loop.meter.load(), loop.meter.seconds(), self.price.prior())
        return plan.estimates.seconds[1], loop.meter.total_seconds
