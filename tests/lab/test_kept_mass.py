"""The softmax that selectors leave, against a softmax over all keys in plain torch; dense answers are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.attention.stage import attend, poisoned_store, spec_of, steps_of
from tests.conformance.test_select import ROWS, SHARE, Paths, backend_of, long_job
from tests.tiny_models import make_model
from umbel.attention.select.selected import SelectedAttention
from umbel.kernels.view import GRID
from umbel.lab.answers import AnsweringModel
from umbel.lab.kept_mass import MassMeter, kept_share, measure_mass
from umbel.lab.tasks import LabTask

SPEC = spec_of(2, 2, 16)
FEW = ("pages", "vertical-slash")  # the others take as long, and no other line of what is measured
EACH = pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in FEW)) for n in ROWS])


def by_hand(query: torch.Tensor, keys: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """The share of each head's softmax on keys that are read."""
    spread = keys.repeat_interleave(len(query) // len(keys), 0).double()
    weights = torch.exp((spread @ query.double()[:, :, None]).squeeze(2) * SPEC.kv_shape(0).scale)
    return (weights * read.repeat_interleave(len(query) // len(keys), 0)).sum(1) / weights.sum(1)


def selected(name: str, pages: int) -> SelectedAttention:
    store = poisoned_store(SPEC, pages, 16)
    selector = ROWS[name].load()(ROWS[name].settings_of(f"{name}:{SHARE[name]}=0.2"), SPEC)
    return SelectedAttention(backend_of(SPEC, store), [selector], SPEC, store)


@EACH
def test_kept_mass_is_that_of_every_row_by_hand(name: str) -> None:
    job = long_job()
    paths = Paths(pages := job.demand(16), 16)
    meter, twin, plain = MassMeter(selected(name, pages)), selected(name, pages), selected(name, pages).inner
    keys, found = torch.zeros(2, 4096, 16), list[torch.Tensor]()
    for _, step in steps_of(job, pages, 16, 700):
        q, k, v = paths.qkv(step)
        for backend in (meter, twin, plain):
            backend.prepare(step)
        assert torch.equal(attend(meter, q, k, v), attend(plain, q, k, v))  # nothing is left out
        attend(twin, q, k, v)
        keys[:, torch.from_numpy(step.positions)] = k.transpose(0, 1)  # of one prompt, whose path is its positions
        view = twin.picked(0, q)
        for row, position in enumerate(step.positions.tolist() if view is not None else ()):
            read = view.reads[int(view.tile_of[row])].repeat_interleave(GRID, 1)[:, : position + 1].clone()
            read[:, position // GRID * GRID :] = True
            if not read.all():
                found.append(by_hand(q[row], keys[:, : position + 1], read))
    hand = torch.stack(found)
    assert meter.count == hand.numel() and meter.total == pytest.approx(float(hand.sum()), rel=1e-5)
    assert meter.least == pytest.approx(float(hand.mean(1).min()), rel=1e-4) and 0 < meter.least < 1


def test_windows_and_caps_are_those_of_the_layer() -> None:
    generator = torch.Generator().manual_seed(3)
    query, keys = torch.randn(1, 2, 8, generator=generator), torch.randn(1, 400, 8, generator=generator)
    reads = torch.tensor([[True, False, False, True]])
    scores = 30 * torch.tanh((query[0] @ keys[0].T) * 0.5 / 30)
    scores[:, : 400 - 300] = -torch.inf
    weights = scores.softmax(-1)
    hand = weights[:, :128].sum(1) + weights[:, 384:].sum(1)
    assert torch.allclose(kept_share(query, keys, reads, 0.5, cap=30.0, window=300)[0], hand, atol=1e-6)


def test_a_model_answers_as_dense_while_its_mass_is_measured(tmp_path: Path) -> None:
    directory = str(make_model(tmp_path / "model", "qwen3", max_position_embeddings=2048))
    model = AnsweringModel(directory, technique="pages:budget=0.2", allow_lossy=True, device="cpu", dtype="float32")
    prompt = {"prompt_token_ids": [(j * j) % 290 + 3 for j in range(1200)]}
    meter = measure_mass(model, LabTask("t", [prompt], [6], [None]))
    rows, heads, layers = 5, 4, 2  # the first token of an answer is drawn by the prompt's last
    assert meter.count <= rows * heads * layers and meter.count % heads == 0 and meter.count > 0
    assert 0 < meter.least <= meter.total / meter.count < 1
    assert model.stats().keys_whole == 0  # nothing was left unread
    assert np.isfinite(meter.total)
