"""Admits by current use alone: a sample starts when its prompt and the first page of its answer fit.

The pool is never idle, but samples that grow at the same time overflow it, and the last in order are computed again
(measured in docs/admission.md; the baseline of Past-Future, arXiv 2507.10150).
"""

from __future__ import annotations

from umbel.sched.policies.admission import Admission


class Aggressive(Admission):
    """What fits now may start."""
