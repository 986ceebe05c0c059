"""`umbel.ray.Stage`: answers the rows of a Ray dataset, for pipelines that are written in Ray Data.

    rows = ray.data.read_parquet("reviews.parquet").repartition(8, keys=["group"])
    rows.map_batches(umbel.ray.Stage, fn_constructor_args=["Qwen/Qwen3-0.6B"], batch_size=None, concurrency=8)

A call gets a block of rows, plans it as a whole and gives its rows back in their order, in one block: Ray repeats a
call whose actor is lost, and rows that came out as they finish would then be lost or doubled. A row's draws go by its
key, so that neither blocks nor repetitions change them. A job that must not repeat work when it is killed is `umbel run
--executor ray`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.api import LLM, RequestOutput
from umbel.errors import InvalidRequest, UsageError
from umbel.ir.body import SAMPLING_FIELDS
from umbel.ir.params import SamplingParams
from umbel.ir.request import Completion, RowError

Columns = dict[str, NDArray[Any]]
KEY, PROMPTS = "key", ("messages", "prompt")
OUT = ("text", "finish_reason", "token_ids", "choices", "error")


class Stage:
    """A class for `map_batches`: a model of its own in each actor of the pool.

    Rows have a column `prompt` (texts or token ids) or `messages`, and `key`, a whole number or a text that no other
    row has; columns named as sampling parameters (`max_tokens`, `temperature` ...) are those of the row, where they
    are not null. Behind the columns of a row come `text`, `finish_reason`, `token_ids`, with logprobs asked for also
    `logprobs`; `choices` in place of these for `n` above 1; and `error`, null where there is an answer.
    """

    def __init__(self, model: str, params: Mapping[str, Any] | None = None, **options: Any):
        """`params` are sampling parameters of all rows, `options` those of an LLM. Raises what loading raises."""
        self._llm = LLM(model, **options)
        self._params = dict(params or {})

    def __call__(self, batch: Columns) -> Columns:
        """The columns of a block of rows, with the answers behind them. Raises UsageError for columns that are missing
        or taken."""
        prompts = _prompts(batch)
        if taken := [name for name in OUT if name in batch]:
            raise UsageError(f"column {taken[0]!r}: answers have this name; rename it with rename_columns first")
        if KEY not in batch:
            raise UsageError(f"no column {KEY!r}: give each row its number, or another key, by which its draws go")
        params = [self._params_of(batch, row) for row in range(len(prompts))]
        rows = {row: one for row, one in enumerate(params) if isinstance(one, SamplingParams)}
        keys = batch[KEY].tolist()
        outputs = self._llm.generate(
            [prompts[row] for row in rows], list(rows.values()), keys=[keys[row] for row in rows], use_tqdm=False
        )
        found = {row: _answer(output) for row, output in zip(rows, outputs, strict=True)}
        found |= {row: {"error": one.body()} for row, one in enumerate(params) if isinstance(one, RowError)}
        return batch | _columns([found[row] for row in range(len(prompts))])

    def _params_of(self, batch: Columns, row: int) -> SamplingParams | RowError:
        own = {name: batch[name][row] for name in SAMPLING_FIELDS & batch.keys()}
        own = {name: one.item() if isinstance(one, np.generic) else one for name, one in own.items()}
        try:
            return SamplingParams(**self._params | {name: one for name, one in own.items() if not _is_null(one)})
        except (InvalidRequest, UsageError, TypeError) as error:
            return RowError(getattr(error, "code", "invalid_value"), str(error))


def _prompts(batch: Columns) -> list[Any]:
    name = next((name for name in PROMPTS if name in batch), None)
    if name is None:
        raise UsageError(f"no column 'prompt' or 'messages', only {', '.join(map(repr, batch))}: make one with map")
    given = [one.tolist() if isinstance(one, np.ndarray) else one for one in batch[name]]
    return [{"messages": one} for one in given] if name == "messages" else given


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _columns(answers: Sequence[dict[str, Any]]) -> Columns:
    """The columns of answers; those in which all cells would be null are left out, but for text and error."""
    names = dict.fromkeys([*OUT[:2], *(name for answer in answers for name in answer), "error"])
    found: Columns = {name: np.empty(len(answers), object) for name in names}
    for name, column in found.items():
        for row, answer in enumerate(answers):
            column[row] = answer.get(name)
    return found


def _answer(output: RequestOutput) -> dict[str, Any]:
    if output.error is not None:
        return {"error": output.error.body()}
    first, *more = [_completion(one) for one in output.outputs]
    return {"choices": [first, *more]} if more else first


def _completion(one: Completion) -> dict[str, Any]:
    told = {"text": one.text, "finish_reason": one.finish_reason, "token_ids": list(one.token_ids)}
    if one.logprobs is None:
        return told
    return told | {"logprobs": [{"token_id": at.token_id, "logprob": at.logprob, "top": at.top} for at in one.logprobs]}
