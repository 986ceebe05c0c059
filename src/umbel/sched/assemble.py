"""From an agenda to a Step: the nodes depth-first, their rows behind each other, the pages they read, how to sample."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from umbel.cache.tree import KVTree
from umbel.ir.columns import lengthen, runs
from umbel.ir.detached import set_apart
from umbel.ir.step import Sampling, Step
from umbel.sched.agenda import Agenda
from umbel.sched.request_table import RequestTable
from umbel.sched.sequences import Sequences
from umbel.sched.step_layout import StepLayout, only_decodes, scopes_of, whole_of

Ints = NDArray[np.int64]


class Assembler:
    """Lays agendas out as Steps, each from scratch or from the last one."""

    def __init__(self, seqs: Sequences, tree: KVTree, requests: RequestTable):
        self._seqs, self._tree, self._requests = seqs, tree, requests
        self._last: StepLayout | None = None  # of the last step, where it only decoded
        # Per node of the tree: its rows in the step being made, and its place in it. Only read where just written.
        self._rows, self._place = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def step(self, agenda: Agenda) -> Step:
        """The agenda as a Step."""
        decodes, last = only_decodes(agenda, self._seqs.tip[agenda.slots], self._tree), self._last
        if last is None or not decodes or not last.fits(agenda, self._tree):
            layout = self.lay_out(agenda)
        elif last.follows(agenda, self._tree):
            layout = last.again(self._seqs, self._tree)
        else:
            layout = last.grown(agenda, self._seqs, self._tree, self._draws)
        self._last, apart = layout if decodes else None, self._tree.apart
        step = layout.step if apart is None else apart.mark(layout.step, layout.nodes)
        log = self._tree.tokens
        return set_apart(step, log.document[layout.nodes]) if log.has_documents and not decodes else step

    def lay_out(self, agenda: Agenda) -> StepLayout:
        """The agenda as a Step, from scratch. Nodes in use without rows below them in this step are left out."""
        tree = self._tree
        tips = self._seqs.tip[agenda.slots]
        refed = np.fromiter(agenda.refeed, np.int64, len(agenda.refeed))
        nodes, rows, stop = self._nodes(agenda, tips, refed)
        reach = np.append(0, np.cumsum(rows))
        row_begin = reach[:-1]
        place = self._places(nodes)
        again = np.zeros(len(nodes), bool)
        again[place[refed]] = True
        first = tree.held[nodes] - again  # tokens of the node that come before those that it feeds
        begin = tree.start[nodes] + first
        above = tree.parent[nodes]
        pages, page_begin = tree.table.gather(nodes)
        scored, row_of = tree.scored, partial(self._row_of, row_begin)
        step = Step(
            tokens=self._tokens(nodes, first, rows),
            positions=runs(begin, rows),
            fresh=~np.repeat(again, rows),
            parent=np.where(above < 0, -1, place[above]),
            start=tree.start[nodes],
            end=begin + rows,
            row_begin=row_begin,
            row_end=row_begin + rows,
            below_end=reach[stop],
            pages=pages,
            page_begin=page_begin,
            page_size=tree.pool.page_size,
            sampling=self._sampling(agenda, tips, row_begin + rows - 1),
            scores=scored.ask(agenda.counts, tree.held, tree.seen, row_of) if scored.open else None,
            sums=scored.summed.ask(agenda.counts, tree.held, tree.seen, row_of) if scored.summed.open else None,
            scope=scopes_of(tree, nodes) if tree.is_scoped else None,
            answers=tree.drawn[nodes] != 0,
            whole=whole_of(tree, nodes) if self._requests.any_whole else None,
            group=None if agenda.passing is None else agenda.passing.group(row_of),
        )
        at, plain = place[tips], agenda.drafted is None
        changes = tree.changes, tree.cuts, tree.page_changes
        return StepLayout(step, nodes, stop, agenda.slots, at, np.argsort(at), plain, *changes)

    def _nodes(self, agenda: Agenda, tips: Ints, refed: Ints) -> tuple[Ints, Ints, Ints]:
        """Nodes with rows of their own or below them, depth-first: how many each has, and where those of these nodes
        that are below it end."""
        tree = self._tree
        counts = agenda.counts
        own = np.concatenate([np.fromiter(counts, np.int64, len(counts)), refed, tips])
        self._rows = lengthen(self._rows, tree.n_nodes)
        of_runs = np.fromiter(counts.values(), np.int64, len(counts))
        self._rows[own] = np.concatenate([of_runs, np.ones_like(refed), agenda.tip_counts])
        nodes = tree.nodes_in_use()
        rows = self._rows[nodes]
        self._rows[own] = 0
        reach = np.append(0, np.cumsum(rows))
        _, stop = tree.labels.within(nodes, nodes)
        some = reach[stop] > reach[:-1]
        if some.all():
            return nodes, rows, stop
        return nodes[some], rows[some], np.append(0, np.cumsum(some))[stop[some]]

    def _places(self, nodes: Ints) -> Ints:
        """Per node of the tree its place among `nodes`; meaningless for others."""
        self._place = lengthen(self._place, self._tree.n_nodes)
        self._place[nodes] = np.arange(len(nodes))
        return self._place

    def _tokens(self, nodes: Ints, first: Ints, counts: Ints) -> Ints:
        """Token ids that the nodes feed: `counts[i]` of `nodes[i]`, from its token `first[i]` on."""
        of_run = (self._tree.slot[nodes] < 0) & (counts > 0)
        if not of_run.any():
            return self._of_tips(nodes, first, counts)
        of_tip, place = ~of_run, np.cumsum(counts) - counts
        tokens = np.empty(int(counts.sum()), np.int64)
        log = self._tree.tokens
        tokens[runs(place[of_run], counts[of_run])] = log.gather(nodes[of_run], first[of_run], counts[of_run])
        tokens[runs(place[of_tip], counts[of_tip])] = self._of_tips(nodes[of_tip], first[of_tip], counts[of_tip])
        return tokens

    def _of_tips(self, tips: Ints, first: Ints, counts: Ints) -> Ints:
        """The same for tips: what their samples generated, behind the prompt and the runs that they share."""
        slots = self._tree.slot[tips]
        begin = self._tree.start[tips] - self._seqs.prompt_len[slots] + first
        return self._seqs.out[np.repeat(slots, counts), runs(begin, counts)].astype(np.int64)

    def _sampling(self, agenda: Agenda, tips: Ints, last_row: Ints) -> Sampling:
        """Columns for the draws: of tips that reach their end (as on the agenda), a draw behind the last token and each
        that is proposed, then of first tokens of tips."""
        seqs, tree = self._seqs, self._tree
        reaches = tree.held[tips] + agenda.tip_counts == tree.length[tips]
        firsts = np.array(agenda.firsts, np.int64)
        slots = np.concatenate([agenda.slots[reaches], firsts])
        fed = np.concatenate([tips[reaches], tree.parent[seqs.tip[firsts]]])  # nodes whose last rows are drawn from
        at, positions = last_row[self._place[fed]], seqs.prompt_len[slots] + seqs.n_out[slots]
        if agenda.drafted is not None:
            draws = np.concatenate([agenda.drafted[reaches], np.zeros_like(firsts)]) + 1
            slots, at = np.repeat(slots, draws), runs(at + 1 - draws, draws)
            positions = runs(positions + 1 - draws, draws)
        return self._draws(slots, at, positions)

    def _draws(self, slots: Ints, at: Ints, positions: Ints) -> Sampling:
        """Columns for draws of the samples in these slots, from these rows, of tokens at these positions."""
        return self._requests.draws(self._seqs.row[slots], self._seqs.sample[slots], at, positions)

    def _row_of(self, row_begin: Ints, node: int) -> int:
        """The first row of a node in the step being made."""
        return row_begin.item(self._place.item(node))
