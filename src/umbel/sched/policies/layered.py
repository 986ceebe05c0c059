"""Prompts of a mixture of experts pass the layers in groups, one group in each step, instead of all layers in chunks.

Layered prefill (arXiv 2510.08055): a chunk of a few hundred tokens makes each layer read nearly all of its experts,
once for every chunk. A whole prompt that passes a few layers in each step makes each layer read them once. Samples that
decode pass all layers in every step. There groups are set by the length of a prompt; here each step takes as many
layers as leave its predicted seconds within the target, and prompts go in chunks where the price list says that these
are quicker, as it does of models whose layers read all their weights in any case.

What is more urgent does not wait for a prompt on its way: while such prompts are in a step, that one stays where it is
between two layers, and goes on behind them (QLLM, arXiv 2503.09304).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from umbel.sched.agenda import Agenda
from umbel.sched.books import Books
from umbel.sched.phases.base import Phase
from umbel.sched.policies.leftover import load_of, so_far
from umbel.sched.policies.levels import levels_of
from umbel.sched.policies.lines import Lines
from umbel.sched.policies.stall_free import StallFree, StepPace, is_watched
from umbel.sched.stage import Passing, PromptStage


@dataclass(frozen=True, slots=True)
class LayerPace(StepPace):
    """A pace of steps of a model with so many `layers`."""

    layers: int = 1

    def allows(self, agenda: Agenda, books: Books, counts: dict[int, int], done: int) -> int:
        """The layer up to which so many tokens of nodes may pass beside what is on the agenda."""
        left = self.layers - done
        if self.target is None or not is_watched(books):
            return self.layers
        without, more = self.cost(agenda, books, counts)
        share = (self.target - without) / more if more > 0 else 1.0
        return done + min(max(int(share * self.layers), 1), left)

    def cost(self, agenda: Agenda, books: Books, counts: dict[int, int]) -> tuple[float, float]:
        """The seconds of a step without so many tokens of nodes, and what these add to it in all layers."""
        rest = {node: count for node, count in agenda.counts.items() if node not in counts}
        own = Agenda(0, rest, agenda.refeed, agenda.slots, agenda.tip_counts, None, agenda.firsts)
        without = float(self.prices.each(load_of(own, books))[0])
        own.counts = rest | counts
        return without, float(self.prices.each(load_of(own, books))[0]) - without

    def pays(self, agenda: Agenda, books: Books, counts: dict[int, int]) -> bool:
        """Whether so many tokens of nodes are done sooner in groups of layers than in steps of as many tokens as there
        are on the agenda."""
        assert self.target is not None
        without, more = self.cost(agenda, books, counts)
        chunk = sum(agenda.counts.get(node, 0) for node in counts)
        chunks = sum(counts.values()) / max(chunk, 1)
        layers = min(max(int((self.target - without) / more * self.layers), 1), self.layers) if more > 0 else 1
        in_chunks = chunks * float(self.prices.each(load_of(agenda, books))[0])
        return ceil(self.layers / layers) * without + more < in_chunks


class Layered(StallFree):
    """Stall-free steps, in which prompts that one step does not hold pass the layers in groups where that pays."""

    def __init__(self, phases: Sequence[Phase], pace: LayerPace):
        super().__init__(phases)
        self.pace: LayerPace = pace
        self.stage: PromptStage | None = None

    def fill_once(self, agenda: Agenda, books: Books) -> None:
        """Put work on the agenda: the stage that is open, if there is one."""
        stage, room = None if self.stage is None else self.stage.left(books.kv), agenda.budget
        if stage is not None:
            agenda.passing = self._go_on(agenda, books, stage)
        else:
            super().fill_once(agenda, books)
            agenda.passing = self._open(agenda, books, room)
        self.stage = None if agenda.passing is None else agenda.passing.after

    def _go_on(self, agenda: Agenda, books: Books, stage: PromptStage) -> Passing | None:
        """The stage passes more layers, unless prompts are in the step that are more urgent. No others of its own level
        and below start before it has passed all."""
        decode, *prompts = self.phases
        levels = levels_of(books)
        for level in levels:
            agenda.level = level
            decode.fill(agenda, books)
            if level is not None and level < stage.level:
                for phase in prompts:
                    phase.fill(agenda, books)
        left = stage.left(books.kv)
        if left is None:
            return None
        if agenda.counts or agenda.budget < left.tokens:
            return Passing(left, left.done)
        end = self.pace.allows(agenda, books, left.counts, left.done)
        agenda.counts |= left.counts
        agenda.budget -= left.tokens
        if end == left.n_layers:
            for level in levels:
                agenda.level = level
                for phase in prompts if level is None or level >= left.level else ():
                    phase.fill(agenda, books)
        return Passing(left, end)

    def _open(self, agenda: Agenda, books: Books, room: int) -> Passing | None:
        """A stage of the most urgent prompts that the step does not hold, where it pays; `room`: tokens that a step may
        have."""
        wanted = books.kv.scored.open or books.kv.scored.summed.open  # what is asked of each token once
        if wanted or self.pace.target is None or not is_watched(books):
            return None
        done, level, cut = _prompts(agenda, books)
        spare, counts = room - int(so_far(agenda, books)[0]), {n: c for n, c in agenda.counts.items() if n not in done}
        for path in cut:
            spare = _add(books, path, counts, spare)
        if not cut or not self.pace.pays(agenda, books, counts):
            return None
        end = self.pace.allows(agenda, books, counts, 0)
        agenda.counts |= counts
        agenda.budget = spare
        return Passing(PromptStage.of(books.kv, counts, level, self.pace.layers), end)


def _prompts(agenda: Agenda, books: Books) -> tuple[set[int], int, list[list[int]]]:
    """Nodes of prompts that are done with the step, and of the most urgent that are not their priority and their paths,
    in their turn."""
    seqs, kv, waiting = books.seqs, books.kv, books.waiting
    assert isinstance(waiting, Lines)
    slots, done, cut = seqs.runners(), set[int](), list[tuple[int, float, list[int]]]()
    for slot in slots[~seqs.primed[slots]].tolist():
        path, row = kv.path(kv.parent.item(seqs.tip.item(slot))), seqs.row.item(slot)
        if all(kv.length.item(node) == kv.held.item(node) + agenda.counts.get(node, 0) for node in path):
            done.update(path)
        else:
            cut.append((books.requests.priority.item(row), waiting.key(row), path))
    cut.sort(key=lambda one: one[:2])
    level = cut[0][0] if cut else 0
    return done, level, [path for priority, _, path in cut if priority == level]


def _add(books: Books, path: list[int], counts: dict[int, int], spare: int) -> int:
    """Put what a path lacks to `counts`, at most `spare` tokens; returns how many are left."""
    kv = books.kv
    for node in path:
        had = counts.get(node, 0)
        more = min(kv.length.item(node) - kv.held.item(node) - had, spare)
        if more > 0:
            counts[node] = had + more
            spare -= more
    return spare
