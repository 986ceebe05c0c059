"""Records numeric formats and the attention backend as decisions when they are not the default."""

from __future__ import annotations

from umbel import registry
from umbel.errors import UsageError
from umbel.ir.plan import Decision
from umbel.plan.draft import PlanDraft


def name_formats(draft: PlanDraft) -> PlanDraft:
    """Decide "linear", as asked or int4 because the checkpoint is, "kv_dtype" and "attention". Raises UsageError for a
    backend of attention that the device cannot run."""
    config, measured = draft.config, draft.known.calibration is not None
    if (kv_dtype := config.kv_cache_dtype) != "auto":
        why = f"{_asked('kv_cache_dtype', kv_dtype)}; priced by its bytes"
        draft = draft.decide(Decision("kv_dtype", kv_dtype, why))
    if (backend := config.attention_backend) != "auto":
        technique = registry.at("attention_backend", backend)
        if technique is not None and technique.can and (lack := technique.can.elsewhere(draft.price.machine.device)):
            raise UsageError(f"attention_backend={backend!r} cannot serve this model here: {lack}; 'auto' always can")
        priced = "by earlier runs with it" if measured else "as the default until runs have measured it"
        why = f"{_asked('attention_backend', backend)}; priced {priced}"
        draft = draft.decide(Decision("attention", backend, why))
    return _name_products(_name_techniques(draft))


def _name_techniques(draft: PlanDraft) -> PlanDraft:
    """Decide "technique": those that were asked for by name; of what is forgotten more is said later."""
    config = draft.config
    if not config.technique or registry.measure("technique", config.technique) is not None:
        return draft
    measured = ", fitted to earlier runs with it" if draft.known.calibration is not None else ""
    cut = bool(registry.asked_of("prompt", config.technique))
    by = "tokens that are read" if cut else "keys that are read"
    by = "layers that tokens pass" if registry.asked_of("flow", config.technique) else by
    why = f"lossy, as asked; priced by the {by}{measured}"
    return draft.decide(Decision("technique", "; ".join(config.technique), why))


def _asked(option: str, value: str) -> str:
    """What the catalogue says of a value that was asked for."""
    technique = registry.at(option, value)
    return "lossy, as asked" if technique is not None and not technique.exact else "exact, as asked"


def _name_products(draft: PlanDraft) -> PlanDraft:
    """Decide "linear": as asked, or int4 because the checkpoint is."""
    linear, form = draft.config.linear, draft.spec.quantization
    if linear != "dense":
        price = "by its bytes" if linear.startswith("int4") else "as dense until runs have measured it"
        price = "by earlier runs with it" if draft.known.calibration is not None else price
        return draft.decide(Decision("linear", linear, f"{_asked('linear', linear)}; priced {price}"))
    if form is not None:
        why = f"the checkpoint's own ({form.packing}); exactly the weights it stands for"
        return draft.decide(Decision("linear", "int4", why))
    return draft
