"""Random jobs whose rows forget, without a model: each answers what it answers alone, and every page has one owner."""

from __future__ import annotations

import random

import pytest

from tests.conformance.test_forget import GREEDY, PAGE, scheduler_for, stepping_back, steps_of
from tests.sched.drive import VOCAB, Job
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler

KEEPERS = {
    "sink-window": "sinks=2,window=20",
    "lag-kv": "budget=0.25,lag=16",
    "sage-kv": "budget=0.3",
    "h2o": "budget=0.3",
}
Tokens = dict[tuple[int, int], list[int]]


def random_job(rng: random.Random) -> Job:
    """Rows that fork from two bases, some with several samples; some answers are of one token."""
    bases = [[rng.randrange(VOCAB) for _ in range(260)] for _ in range(2)]
    prompts, samples, outs = [], [], []
    for _ in range(rng.randrange(2, 8)):
        begin = rng.choice(bases)[: rng.choice((1, 15, 16, 17, 64, 100, 130, 200, 260))]
        prompts.append(begin + [rng.randrange(VOCAB) for _ in range(rng.choice((0, 1, 5, 60)))])
        samples.append(rng.choice((1, 1, 1, 3)))
        outs.append(rng.choice((1, rng.randrange(1, 80))))
    return Job(prompts, samples, outs)


def alone(job: Job, name: str) -> Tokens:
    """What each row answers by itself, in one piece and ample memory."""
    found: Tokens = {}
    for row, (prompt, n, out) in enumerate(zip(job.prompts, job.ns, job.outs, strict=True)):
        one, tokens = Job([prompt], [n], [out]), Tokens()
        for _ in steps_of(one, scheduler_for(name, KEEPERS[name], one, one.demand(PAGE) * 2 + 8, 1000), tokens):
            pass
        found.update({(row, sample): given for (_, sample), given in tokens.items()})
    return found


@pytest.mark.parametrize("seed", [2, 31, 108, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(40))])
def test_a_row_answers_what_it_answers_alone(seed: int) -> None:
    """In small and large pools and chunks, by several rules, where samples step back and rows are dropped."""
    rng = random.Random(seed)
    job, name = random_job(rng), rng.choice(list(KEEPERS))
    wanted = alone(job, name)
    pages = rng.choice((job.demand(PAGE) * 2 + 8, job.largest_row(PAGE) + rng.randrange(1, 12)))
    policy = rng.choice((GREEDY, Policy(), Policy(admission="conservative"), Policy(max_running=3)))
    scheduler = scheduler_for(name, KEEPERS[name], job, pages, rng.choice((17, 40, 64, 300)), policy)
    tokens, dropped = Tokens(), set[int]()
    back, drops = stepping_back(rng.choice((0, 0, 5, 9, 23))), rng.choice((0, 0, 13))

    def after(scheduler: Scheduler) -> None:
        back(scheduler)
        if drops and scheduler.steps % drops == 0 and len(dropped) < len(job.ns) - 1:
            dropped.add(row := rng.randrange(len(job.ns)))
            scheduler.drop_row(row)

    for _ in steps_of(job, scheduler, tokens, after):
        pass
    assert tokens.items() <= wanted.items()
    assert wanted.keys() - tokens.keys() <= {key for key in wanted if key[0] in dropped}
