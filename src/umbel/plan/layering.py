"""Whether prompts may pass the layers of a model in groups (layered prefill, arXiv 2510.08055), and what it would cost
where nothing is gained by it."""

from __future__ import annotations

from umbel.config import EngineConfig
from umbel.cost.load import Load
from umbel.ir.plan import Refusal
from umbel.ir.spec import ModelSpec
from umbel.plan.draft import PlanDraft


def why_not_layered(spec: ModelSpec, config: EngineConfig) -> str:
    """Why prompts of a model go through all its layers in one step; '' where they need not."""
    reasons = {
        "a step reads all weights of a dense model, however few of its rows pass a layer": not spec.experts,
        "its layers keep states, which a step takes on by all its rows": bool(spec.recurrences),
        "its layers are a module of transformers, which runs as a whole": spec.hosted is not None,
        "its layers are cut over several devices": config.tensor_parallel_size > 1,
        "what a technique leaves out is laid out once a step": bool(config.technique),
    }
    return next((why for why, holds in reasons.items() if holds), "")


def refuse_layered(draft: PlanDraft) -> Refusal:
    """The refusal for a job, whose answers no one reads as they come: a step of its prompts in two, each of which reads
    the weights that one row reads, adds so many seconds."""
    steps = -(-draft.forest.n_tokens // draft.chunk)
    seconds = steps * float(draft.price.each(Load.one(1, 1, 1, 1))[0])
    why = why_not_layered(draft.spec, draft.config) or (
        "a job has whole steps; a session takes it where it is quicker within the target between tokens"
    )
    return Refusal("step: layered", seconds, why)
