"""The forms of answers that a job asks for, as `umbel plan` shows them: how many, what they take, which are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel.errors import UmbelError
from umbel.jobs.read.prepare import Prepared

if TYPE_CHECKING:
    from umbel.batch.reading import LateTokenizer
    from umbel.ir.spec import ModelSpec
    from umbel.ir.structured import StructuredOutputsParams

_CODES = ("invalid_grammar",)


def put_forms(record: dict[str, Any], prepared: Prepared, tokenizer: LateTokenizer, spec: ModelSpec) -> None:
    """Put `forms` into the record of a plan, where rows ask for any: how many are `distinct` and the `rows` under them;
    `compile_seconds` of one core; `forced_share`, the share of tokens that was certain on walks through `walked` of
    them (null where there is no tokenizer to walk with); `refused`, each with its `reason` and `rows`."""
    asked = Counter(id(params) for params in prepared.workload.params if params.structured_outputs is not None)
    forms = dict.fromkeys(p.structured_outputs for p in prepared.workload.params if p.structured_outputs is not None)
    errors = [row.error for row in prepared.faults if row.error is not None and row.error.code in _CODES]
    refused = Counter(error.message for error in errors)
    if not forms and not refused:
        return
    record["forms"] = {
        "distinct": len(forms),
        "rows": sum(asked.values()),
        **_costs(list(forms), tokenizer, spec),
        "refused": [{"reason": reason, "rows": rows} for reason, rows in refused.most_common()],
    }


def _costs(forms: Sequence[StructuredOutputsParams], tokenizer: LateTokenizer, spec: ModelSpec) -> Mapping[str, Any]:
    from umbel.text.form_walks import survey

    nothing = {"compile_seconds": None, "walked": 0, "forced_share": None}
    if not forms or not spec.eos_token_ids:
        return nothing
    try:
        masker, pieces = tokenizer.masker(spec.vocab_size, spec.eos_token_ids)
    except UmbelError:  # a shape, or a directory without a tokenizer
        return nothing
    found = survey(masker, forms, pieces, spec.eos_token_ids[0])
    share = found.forced / found.tokens if found.tokens else 0.0
    return {"compile_seconds": round(found.seconds, 4), "walked": found.walked, "forced_share": round(share, 3)}
