"""Steps as bytes: what comes out is what went in, and bytes that hold more than arrays are refused."""

from __future__ import annotations

import io
import random
from dataclasses import fields, replace

import numpy as np
import pytest

from tests.attention.stage import random_job, steps_of
from tests.sched.drive import VOCAB
from umbel.ir.logit_changes import LogitChanges
from umbel.ir.scores import Scores
from umbel.ir.step import Sampling, Step
from umbel.ir.token_masks import all_but
from umbel.runner.wire import decode_step, encode_step


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        assert isinstance(b, np.ndarray)
        return a.dtype == b.dtype and bool(np.array_equal(a, b))
    return a == b


def test_steps_come_out_as_they_went_in() -> None:
    job, count = random_job(random.Random(1), 8), 0
    for _, step in steps_of(job, job.demand(16), 16, 100):
        masks = np.stack([all_but(ids, VOCAB) for ids in ((3, 4), (9,))])
        masked = replace(step.sampling, mask=np.arange(len(step.sampling)) % 3 - 1, masks=masks)
        n = len(masked)
        columns = np.arange(2 * n), np.zeros(2 * n, np.float32), np.arange(2 * n), np.ones((n, 3), np.float32)
        changed = replace(
            masked,
            named=np.arange(2 * n).reshape(n, 2),
            changes=LogitChanges(np.arange(n), np.arange(0, 2 * n + 1, 2), *columns),
        )
        scores = Scores(np.arange(step.n_rows), np.arange(step.n_rows) % VOCAB, top=2)
        for sent in (step, *(replace(step, sampling=s) for s in (masked, changed)), replace(step, scores=scores)):
            got = decode_step(encode_step(sent))
            parts = {"sampling", "scores"}
            assert all(same(getattr(got, f.name), getattr(sent, f.name)) for f in fields(Step) if f.name not in parts)
            names = {f.name for f in fields(Sampling)} - {"changes"}
            assert all(same(getattr(got.sampling, name), getattr(sent.sampling, name)) for name in names)
            assert (got.sampling.changes is None) == (sent.sampling.changes is None)
            for f in fields(LogitChanges) if sent.sampling.changes is not None else ():
                assert same(getattr(got.sampling.changes, f.name), getattr(sent.sampling.changes, f.name))
            assert (got.scores is None) == (sent.scores is None)
            if got.scores is not None:
                assert all(same(getattr(got.scores, f.name), getattr(scores, f.name)) for f in fields(Scores))
        count += 1
    assert count > 5


def test_objects_are_refused() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, tokens=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        decode_step(buffer.getvalue())
