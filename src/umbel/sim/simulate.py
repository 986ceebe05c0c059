"""Runs a case under a policy to its end, on the production loop, and reports what it took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from umbel.cost.windows import Windows
from umbel.engine.assemble import make_loop
from umbel.engine.loop import Loop
from umbel.sim.case import SimCase
from umbel.sim.policies.named import setup
from umbel.sim.policies.setup import Setup
from umbel.sim.runner import SimRunner

Watch = Callable[[str, int, int], None]  # policy, rows done, rows


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a policy on a case.

    `computed_prompt_tokens`: each time that a prompt token was computed counts, also after a cache had lost it.
    `saving`: 1 - computed_prompt_tokens / prompt_tokens of the rows that were answered.
    `recomputed_tokens`: tokens computed more than once, answers of preempted rows included.
    `seconds`: the virtual clock.
    """

    policy: str
    rows: int
    failed_rows: int
    prompt_tokens: int
    computed_prompt_tokens: int
    saving: float
    recomputed_tokens: int
    output_tokens: int
    seconds: float
    rows_per_second: float
    steps: int
    chunk: int
    preemptions: int
    evicted_rows: int
    kv_tokens: int
    kv_peak_tokens: int
    kv_mean_tokens: float

    def as_dict(self) -> dict[str, int | float | str]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Run:
    """A policy on a case, ready to go: the production loop over a simulated device."""

    name: str
    loop: Loop
    runner: SimRunner
    setup: Setup

    @classmethod
    def of(cls, case: SimCase, name: str, made: Setup | None = None) -> Run:
        """Put the loop together, with other settings than the policy's if given. Raises UsageError for an unknown
        policy."""
        made = made or setup(case, name)
        runner = SimRunner(
            case.price, case.workload, case.lengths, shared_reads=made.shared_reads, windows=Windows.of(case.spec)
        )
        loop = make_loop(
            case.workload, made.plan, runner, defaults=case.defaults, policy=made.policy, known=case.known.lengths
        )
        return cls(name, loop, runner, made)

    def outcome(self, watch: Watch | None = None) -> Outcome:
        """Run to the end."""
        rows = len(self.loop.scheduler.requests)
        done = failed = prompt_tokens = 0
        for output in self.loop.run():
            done += 1
            failed += output.error is not None
            prompt_tokens += output.prompt_tokens if output.error is None else 0
            if watch is not None:
                watch(self.name, done, rows)
        return self._outcome(done, failed, prompt_tokens)

    def _outcome(self, done: int, failed: int, prompt_tokens: int) -> Outcome:
        stats, seconds, scheduler = self.loop.stats(), self.runner.seconds, self.loop.scheduler
        computed = self.runner.prompt_tokens
        return Outcome(
            policy=self.name,
            rows=done,
            failed_rows=failed,
            prompt_tokens=prompt_tokens,
            computed_prompt_tokens=computed,
            saving=1 - computed / max(prompt_tokens, 1),
            recomputed_tokens=stats.recomputed_tokens,
            output_tokens=stats.output_tokens,
            seconds=seconds,
            rows_per_second=(done - failed) / seconds if seconds else 0.0,
            steps=stats.steps,
            chunk=self.setup.plan.chunk,
            preemptions=stats.preemptions,
            evicted_rows=scheduler.evicted_rows,
            kv_tokens=scheduler.pool.n_pages * scheduler.pool.page_size,
            kv_peak_tokens=stats.kv_peak_tokens,
            kv_mean_tokens=float(scheduler.occupied_pages) * scheduler.pool.page_size / max(stats.steps, 1),
        )


def simulate(case: SimCase, name: str, watch: Watch | None = None) -> Outcome:
    """The result of the policy `name` on a case. Raises UsageError for an unknown policy."""
    return Run.of(case, name).outcome(watch)
