"""Goes through the catalogue: what this plan does not use is refused, with the seconds that it would add and why."""

from __future__ import annotations

from collections.abc import Iterator

from umbel import registry
from umbel.catalog import CATALOG
from umbel.cost.attention import PRICES
from umbel.ir.plan import Refusal
from umbel.plan.draft import PlanDraft
from umbel.plan.layering import refuse_layered
from umbel.plan.passes.cut import count_cut
from umbel.plan.passes.documents import count_documents
from umbel.plan.passes.keeper import name_keeper
from umbel.plan.passes.keys import count_keys
from umbel.plan.passes.layers import count_layers
from umbel.plan.passes.memory import useful_pages
from umbel.plan.passes.stored import name_stored
from umbel.plan.walk.pricing import run_seconds
from umbel.technique import Capability, Technique

BY_NAME = "lossy: may change answers, so taken only by name"
CONTROL = ("admission", "queue", "keep")  # families of which other packages' rows are read without torch


def weigh_techniques(draft: PlanDraft) -> PlanDraft:
    """Refuse every row of the catalogue that no pass has taken or refused; prefix modes are refused by their pass.

    Runs last, over a draft that is decided.
    """
    rows = (*CATALOG, *(row for row in registry.rows(*CONTROL) if not registry.is_built_in(row)))
    others = (refusal for row in rows for refusal in _refusals(row, draft))
    broken = (Refusal(name, None, why) for name, why in registry.faults(*CONTROL))
    draft = count_documents(name_stored(draft))
    draft = count_cut(count_layers(count_keys(name_keeper(draft))))
    return draft.refuse(*others, *_other_rules(rows, draft), *broken)


def _refusals(row: Technique, draft: PlanDraft) -> Iterator[Refusal]:
    name = f"{row.family}: {row.name}"
    if not row.exact:
        if not row.taken_by(draft.config):
            yield from _lossy(row, draft)
    elif row.name == "layered":
        yield refuse_layered(draft)
    elif row.family == "attention" and _is_dearer(row.name) and draft.config.attention_backend != row.name:
        elsewhere = (row.can or Capability()).elsewhere(draft.price.machine.device)
        by_name = f"{PRICES[row.name].source}; taken only by name: --attention-backend {row.name}"
        yield Refusal(name, None, elsewhere or by_name)
    elif row.family == "lengths" and not draft.known.lengths:
        yield Refusal(name, None, "no answers of this model are known yet; the first run records their lengths")
    elif row.family in ("queue", "keep") and row.why_not and not row.taken_by(draft.config):
        yield Refusal(name, None, row.why_not)


def _is_dearer(backend: str) -> bool:
    """Whether a backend is taken only by name: beside Triton's kernel, it is not known to save time."""
    return backend != "triton" and backend in PRICES and PRICES[backend].worst >= 1


def _lossy(row: Technique, draft: PlanDraft) -> Iterator[Refusal]:
    """A technique that may change answers is never taken but by name; weights that are int4 already stay so."""
    option, value = row.option
    if option == "linear" and draft.spec.quantization is not None and not _rounds_rows(value, draft):
        if value != "int4":
            yield Refusal(f"{row.family}: {row.name}", None, "lossy, and the checkpoint's weights are int4 already")
        return
    flag = f"--{option.replace('_', '-')} {value}" + ("" if draft.config.allow_lossy else " --allow-lossy")
    yield Refusal(f"{row.family}: {row.name}", None, f"{BY_NAME}: {flag}")


def _rounds_rows(linear: str, draft: PlanDraft) -> bool:
    """Whether products of int4 weights may be made so: a processor multiplies from nibbles with rows in int8."""
    return linear in ("int4", "int4-head8") and not draft.price.machine.on_gpu


def _other_rules(rows: tuple[Technique, ...], draft: PlanDraft) -> Iterator[Refusal]:
    """Rules of admission, each priced by walking the whole run under it where the pool can be too small."""
    others = [row for row in rows if row.family == "admission" and row.name != draft.admission]
    if draft.kv_tokens >= useful_pages(draft) * draft.config.page_size:
        why = "the pool holds all rows that may run at once, so that the rule makes no difference"
        yield from (Refusal(f"admission: {row.name}", 0.0, why) for row in others)
        return
    as_decided = run_seconds(draft)
    for row in others:
        yield _priced(row, draft, as_decided)


def _priced(row: Technique, draft: PlanDraft, as_decided: float) -> Refusal:
    """A rule of admission, by the seconds that it would add; one of another package must not stop the plan."""
    name = f"admission: {row.name}"
    try:
        return Refusal(name, run_seconds(draft, admission=row.name) - as_decided, row.why_not)
    except Exception as error:
        if registry.is_built_in(row):
            raise
        return Refusal(name, None, f"cannot be priced: {type(error).__name__}: {error}")
