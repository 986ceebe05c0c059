"""Names the rules of a scheduler: one record, so that other engines can be played on the same loop."""

from __future__ import annotations

from dataclasses import dataclass

from umbel import registry
from umbel.cost.survival import OVERFLOW
from umbel.errors import UsageError
from umbel.sched.policies.stall_free import StepPace


@dataclass(frozen=True, slots=True)
class Policy:
    """Which waiting row is next (`queue`), what of the prompts stays cached (`keep`), what may start (`admission`).

    These are names of rules in the catalogue. `queue`: "plan" follows the order given; "longest-prefix" takes the row
    most of whose prompt is cached, ties in order (SGLang, arXiv 2312.07104); "priority" one of the most urgent rows,
    which every phase of a step looks at first, as do "fair", which goes on with the tenant that was served least, and
    "deadline". `step` is what these fill a step with: "stall-free", at a `pace`, "layered", at that of a mixture of
    experts, or "prefill-first". `keep`: "last-reader" gives a shared run up when no row of the order needs it any more;
    "lru" cannot know that and keeps all prompts until their pages are wanted, the least recently used first (vLLM,
    arXiv 2309.06180; generated tokens are not kept); "auto" is "last-reader", or what fits where rows run in another
    order than the forest's nodes, or come while others run. `overflow` is the probability that "past-future" accepts of
    needing more pages than there are. `step_cost` is the number of prompt tokens that take as long as a step of one
    sample: what "past-future" weighs preempted samples against (0: it accepts no more than that). `victim` chooses the
    sample that gives its pages up when there are too few. `max_running` caps the samples at work (None: only pages do).
    """

    name: str = "umbel"
    queue: str = "plan"
    keep: str = "auto"
    admission: str = "past-future"
    max_running: int | None = None
    overflow: float = OVERFLOW
    step_cost: float = 0.0
    victim: str = "last-in-plan"
    step: str = "stall-free"
    pace: StepPace | None = None

    def __post_init__(self) -> None:
        for family in ("queue", "keep", "admission", "victim", "step"):
            if (family, getattr(self, family)) != ("keep", "auto"):
                registry.find(family, getattr(self, family))
        if self.max_running is not None and self.max_running < 1:
            raise UsageError(f"max_running={self.max_running}: must be at least 1, or None for no cap")
        if not 0 < self.overflow < 0.5:
            raise UsageError(f"overflow={self.overflow}: must be a probability between 0 and 0.5")
