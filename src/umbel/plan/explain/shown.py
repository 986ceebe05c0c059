"""Plans as Python shows them: a few lines of text at a prompt, the page of a plan in a notebook."""

from __future__ import annotations

from dataclasses import dataclass, fields
from html import escape

from umbel.ir.plan import Plan
from umbel.plan.explain.record import to_json
from umbel.plan.explain.text import explain, head_lines

FRAME_PIXELS = 640  # of height; what is longer scrolls


@dataclass(frozen=True, slots=True, repr=False)
class ShownPlan(Plan):
    """A plan that says what it is: its `repr` are the first lines of what `umbel plan` prints, `explain` gives all of
    them, and notebooks show its page."""

    @classmethod
    def of(cls, plan: Plan) -> ShownPlan:
        """The same plan; what a plan of replicas has besides is theirs to run by."""
        return cls(**{f.name: getattr(plan, f.name) for f in fields(cls)})

    def explain(self) -> str:
        """The plan as `umbel plan -v` prints it: every decision with its reason, and the forest."""
        return explain(self)

    def __repr__(self) -> str:
        return "\n".join(head_lines(to_json(self)))

    def _repr_html_(self) -> str:
        from umbel.plan.explain.page import plan_page  # the template engine is needed by notebooks only

        return framed(plan_page(to_json(self), self.explain(), "Plan"))


def framed(page: str) -> str:
    """A whole page of HTML as a part of another, with its own styles."""
    style = f"width: 100%; height: {FRAME_PIXELS}px; border: 0"
    return f'<iframe srcdoc="{escape(page)}" style="{style}"></iframe>'
