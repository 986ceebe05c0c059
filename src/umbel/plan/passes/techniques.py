"""Goes through the catalogue: what this plan does not use is refused, with the seconds that it would add and why."""

from __future__ import annotations

from collections.abc import Iterator

from umbel.catalog import CATALOG, Technique
from umbel.cost.attention import PRICES
from umbel.ir.plan import Refusal
from umbel.plan.draft import PlanDraft
from umbel.plan.passes.memory import useful_pages
from umbel.plan.pricing import run_seconds

# What serves requests that come one by one, and why it has nothing to offer where all rows are known.
_BLIND = {
    "lru": "keeps what was used last; the plan keeps what is still to be read",
    "longest-prefix": "looks for sharing in the cache; the walk of the forest has it by construction",
}

_RULES = {
    "aggressive": "fills the pool, then steps back and computes again, which this price leaves out",
    "headroom": "keeps the same growth free for every row, whatever its length",
    "conservative": "keeps room for every row's limit, most of which is never used",
    "past-future": "starts rows by the peak that is predicted",
}


def weigh_techniques(draft: PlanDraft) -> PlanDraft:
    """Refuse every row of the catalogue that no pass has taken or refused; prefix modes are refused by their pass.

    Runs last, over a draft that is decided.
    """
    others = (refusal for row in CATALOG for refusal in _refusals(row, draft))
    return draft.refuse(*others, *_other_rules(draft))


def _refusals(row: Technique, draft: PlanDraft) -> Iterator[Refusal]:
    name = f"{row.family}: {row.name}"
    if not row.exact:
        if not row.taken_by(draft.config):
            yield from _lossy(row, draft)
    elif row.name in PRICES and draft.config.attention_backend != row.name and PRICES[row.name].worst >= 1:
        yield Refusal(name, None, f"{PRICES[row.name].source}; taken only by name: --attention-backend {row.name}")
    elif row.family == "lengths" and not draft.known.lengths:
        yield Refusal(name, None, "nothing is known of this model's answers yet; the first run teaches it")
    elif row.name in _BLIND:
        yield Refusal(name, None, _BLIND[row.name] + "; umbel sim plays it")


def _lossy(row: Technique, draft: PlanDraft) -> Iterator[Refusal]:
    """A technique that may change answers is never taken but by name; weights that are int4 already stay so."""
    option, value = row.option
    if option == "linear" and draft.spec.quantization is not None:
        if value != "int4":
            yield Refusal(f"{row.family}: {row.name}", None, "lossy, and the checkpoint's weights are int4 already")
        return
    flag = f"--{option.replace('_', '-')} {value}" + ("" if draft.config.allow_lossy else " --allow-lossy")
    yield Refusal(f"{row.family}: {row.name}", None, f"lossy: may change answers, so taken only by name: {flag}")


def _other_rules(draft: PlanDraft) -> Iterator[Refusal]:
    """Rules of admission, each priced by walking the whole run under it where the pool can be too small."""
    others = [row.name for row in CATALOG if row.family == "admission" and row.name != draft.admission]
    if draft.kv_tokens >= useful_pages(draft) * draft.config.page_size:
        why = "the pool holds whatever may run at once, so that all rules come to the same"
        yield from (Refusal(f"admission: {name}", 0.0, why) for name in others)
        return
    as_decided = run_seconds(draft)
    for name in others:
        yield Refusal(f"admission: {name}", run_seconds(draft, admission=name) - as_decided, _RULES[name])
