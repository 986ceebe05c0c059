"""Names what products are made in, what keys and values are kept in and what attends, where that is not the usual."""

from __future__ import annotations

from umbel.ir.plan import Decision
from umbel.plan.draft import Draft


def name_formats(draft: Draft) -> Draft:
    """Decide "linear", as asked or int4 because the checkpoint is, "kv_dtype" and "attention"."""
    kv_dtype = draft.config.kv_cache_dtype
    if kv_dtype != "auto":
        draft = draft.decide(Decision("kv_dtype", kv_dtype, "lossy, as asked; priced by its bytes"))
    if (backend := draft.config.attention_backend) != "auto":
        draft = draft.decide(Decision("attention", backend, "exact, as asked; priced as the usual until runs teach"))
    return _name_products(draft)


def _name_products(draft: Draft) -> Draft:
    """Decide "linear": as asked, or int4 because the checkpoint is."""
    linear, form = draft.config.linear, draft.spec.quantization
    if linear == "int4":
        return draft.decide(Decision("linear", linear, "lossy, as asked; priced by its bytes where a GPU keeps them"))
    if linear != "dense":
        return draft.decide(Decision("linear", linear, "lossy, as asked; priced as dense until runs teach"))
    if form is not None:
        why = f"the checkpoint's own ({form.packing}); exactly the weights it stands for"
        return draft.decide(Decision("linear", "int4", why))
    return draft
