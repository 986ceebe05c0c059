"""Prompts before answers: while there is a prompt to compute, nothing else is in the step.

As vLLM did (arXiv 2309.06180) before prompts were cut: the first token comes soon, and running answers stall for every
prompt that comes. For measuring what stall-free steps are worth.
"""

from __future__ import annotations

from umbel.sched.agenda import Agenda
from umbel.sched.books import Books
from umbel.sched.phases.decode import Decode
from umbel.sched.policies.levels import Levels


class PrefillFirst(Levels):
    """Steps of prompts alone, as long as there are any."""

    def fill_once(self, agenda: Agenda, books: Books) -> None:
        """Look at prompts of every priority; if there is none, at samples that decode."""
        decodes = [phase for phase in self.phases if isinstance(phase, Decode)]
        self.fill_with([phase for phase in self.phases if phase not in decodes], agenda, books)
        if agenda.empty:
            self.fill_with(decodes, agenda, books)
