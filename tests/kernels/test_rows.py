"""Operations on rows: compiled kernels against their meaning in torch, and the bits of a row alone and among others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.runner.draws import kept, slow_noise, slow_race
from umbel.kernels import reference
from umbel.kernels.native.calls import INSTRUCTION_SETS, Native
from umbel.kernels.place import Place
from umbel.kernels.reference import Filters
from umbel.kernels.rotation import HeadRotation
from umbel.models.rotary import rotary_angles

EACH = pytest.mark.parametrize("name", INSTRUCTION_SETS)
KINDS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
SHAPES = given(rows=st.integers(1, 40), width=st.integers(1, 70), seed=st.integers(0, 10**6))
EPS = 1e-6


def values(*shape: int, seed: int, scale: float = 3.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def close(got: Tensor, wanted: Tensor, steps: int = 1) -> None:
    """Equal up to a few units in the last place of float32, or `steps` of them in bfloat16."""
    assert got.dtype == wanted.dtype
    tolerance = 2e-6 if got.dtype == torch.float32 else steps * 2.0**-7
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=2e-6)


@EACH
@KINDS
@settings(max_examples=60)
@SHAPES
def test_norms(name: str, dtype: torch.dtype, rows: int, width: int, seed: int) -> None:
    x, delta = (values(rows, width, seed=seed + i, dtype=dtype) for i in range(2))
    weight = values(width, seed=seed + 2, dtype=dtype)
    close(Native(name).rms_norm(x, weight, EPS), reference.rms_norm(x, weight, EPS))
    total, normed = Native(name).add_rms_norm(x, delta, weight, EPS)
    assert torch.equal(total, x + delta)
    close(normed, reference.rms_norm(x + delta, weight, EPS))


@EACH
@KINDS
@settings(max_examples=60)
@SHAPES
def test_gated_activation(name: str, dtype: torch.dtype, rows: int, width: int, seed: int) -> None:
    gate_up = values(rows, 2 * width, seed=seed, scale=8.0, dtype=dtype)
    close(Native(name).gated_silu(gate_up), reference.gated_silu(gate_up))


@EACH
@KINDS
def test_activation_of_extremes(name: str, dtype: torch.dtype) -> None:
    gate = torch.tensor([[-1e30, -200.0, -90.0, -0.0, 0.0, 90.0, 200.0, 1e30, torch.inf, torch.nan]]).to(dtype)
    got = Native(name).gated_silu(torch.cat((gate, torch.ones_like(gate)), 1))
    wanted = reference.gated_silu(torch.cat((gate, torch.ones_like(gate)), 1))
    torch.testing.assert_close(got[:, 3:], wanted[:, 3:], equal_nan=True)
    assert (got[:, :3].abs() < 1e-7).all()


@EACH
@KINDS
@settings(max_examples=30)
@SHAPES
def test_no_further_from_the_truth_than_torch(name: str, dtype: torch.dtype, rows: int, width: int, seed: int) -> None:
    """Against float64; torch rounds bfloat16 in the same places, so that its errors are the measure."""
    native, gate_up = Native(name), values(rows, 2 * width, seed=seed, dtype=dtype)
    x, weight = values(rows, width, seed=seed + 1, dtype=dtype), values(width, seed=seed + 2, dtype=dtype)
    gate, up = gate_up.double().chunk(2, dim=-1)
    normed = x.double() * torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True) + EPS) * weight.double()
    step = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-23
    for got, torchs, truth in (
        (native.gated_silu(gate_up), reference.gated_silu(gate_up), gate * gate.sigmoid() * up),
        (native.rms_norm(x, weight, EPS), reference.rms_norm(x, weight, EPS), normed),
    ):
        worst = ((torchs.double() - truth).abs() / truth.abs().clamp_min(1e-30)).max()
        assert ((got.double() - truth).abs() <= (worst + 2 * step) * truth.abs() + 1e-30).all()


@EACH
@KINDS
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("heads", "dim"), [((4, 2), 64), ((9, 3), 24), ((1, 1), 2), ((16, 8), 128)])
def test_heads_are_rotated(name: str, dtype: torch.dtype, heads: tuple[int, int], dim: int, normed: bool) -> None:
    n_q, n_k = heads
    x = values(11, n_q + 2 * n_k, dim, seed=dim, dtype=dtype)
    angles = rotary_angles(torch.arange(11) * 37, 10.0 ** -torch.linspace(0, 4, dim // 2), dtype)
    norms = (values(dim, seed=1, dtype=dtype), values(dim, seed=2, dtype=dtype)) if normed else None
    got, rotation, place = x.clone(), HeadRotation(n_q, n_k, angles, norms, EPS), place_of(n_k, dim, dtype)
    Native(name).rotate(got, rotation, place)
    wanted = torch.cat(reference.norm_and_rotate(x, rotation), 1)
    assert_stored(place, got[:, n_q : n_q + n_k], got[:, n_q + n_k :])
    if dtype == torch.bfloat16 and not normed:
        assert torch.equal(got, wanted)
    elif dtype == torch.bfloat16:  # a norm that rounds the other way changes a sum of two products by its own step
        assert ((got - wanted).abs() <= 2.0**-6 * wanted.abs().amax(-1, keepdim=True)).all()
    else:
        close(got, wanted)


def place_of(n_k: int, dim: int, dtype: torch.dtype) -> Place:
    """64 slots that hold nothing yet, eleven of which are for rows."""
    keys, values_ = torch.zeros(n_k, 64, dim, dtype=dtype), torch.zeros(n_k, 64, dim, dtype=dtype)
    return Place(keys, values_, torch.tensor([5, 63, 0, 17, 18, 40, 1, 2, 3, 4, 62]))


def assert_stored(place: Place, k: Tensor, v: Tensor) -> None:
    """Keys and values stand in the rows' slots, and nothing else was touched."""
    others = torch.ones(64, dtype=torch.bool)
    others[place.slots] = False
    for stored, new in ((place.keys, k), (place.values, v)):
        assert torch.equal(stored[:, place.slots], new.transpose(0, 1))
        assert not stored[:, others].any()


@EACH
def test_keys_and_values_go_to_stores_of_other_types(name: str) -> None:
    """What the kernel cannot copy as it is, it leaves to torch: rounded to bfloat16, or to fp8 with scales."""
    x, angles = values(11, 8, 16, seed=0), rotary_angles(torch.arange(11), torch.ones(8), torch.float32)
    rotation = HeadRotation(4, 2, angles, None, EPS)
    for kind in (torch.bfloat16, torch.float8_e4m3fn):
        got, place = x.clone(), place_of(2, 16, torch.float32)
        scales = (torch.zeros(2, 64), torch.zeros(2, 64)) if kind.itemsize == 1 else None
        place = replace(place, keys=place.keys.to(kind), values=place.values.to(kind), scales=scales)
        apart = replace(place, keys=place.keys.clone(), values=place.values.clone(), scales=scales and (*scales,))
        Native(name).rotate(got, rotation, place)
        apart.write(got[:, 4:6], got[:, 6:])
        assert torch.equal(place.keys.float(), apart.keys.float()) and place.keys.float().any()
        assert torch.equal(place.values.float(), apart.values.float()) and place.values.float().any()


@EACH
def test_heads_that_do_not_fit_are_refused(name: str) -> None:
    x, angles = values(11, 8, 16, seed=0), rotary_angles(torch.arange(11), torch.ones(8), torch.float32)
    place, rotation = place_of(2, 16, torch.float32), HeadRotation(4, 2, angles, None, EPS)
    for heads, how, to, why in (
        (x[:, :7].contiguous(), rotation, place, "do not fit"),
        (x[:10], rotation, place, "do not fit"),
        (x, replace(rotation, norms=(torch.ones(8), torch.ones(16))), place, "norms"),
        (x, rotation, replace(place, slots=place.slots[:10]), "11 rows of 2 heads of 16"),
        (x, rotation, replace(place, values=place.values[:1]), "11 rows of 2 heads of 16"),
        (x, rotation, replace(place, keys=place.keys[:, ::2], values=place.values[:, ::2]), "side by side"),
    ):
        with pytest.raises(ValueError, match=why):
            Native(name).rotate(heads, how, to)
    with pytest.raises(TypeError, match="not int64"):
        Native(name).rotate(x, rotation, replace(place, slots=place.slots.int()))


@EACH
@settings(max_examples=60)
@given(rows=st.integers(1, 9), width=st.integers(1, 3000), seed=st.integers(0, 10**6), few=st.booleans())
def test_largest(name: str, rows: int, width: int, seed: int, few: bool) -> None:
    logits = values(rows, width, seed=seed)
    if few:  # many equal values: the first counts
        logits = logits.round()
    which = np.random.default_rng(seed).integers(0, rows, 12)
    ids, bad = Native(name).argmax(logits, which)
    wanted = [int(np.flatnonzero(row == row.max())[0]) for row in logits.numpy()[which]]
    assert ids.tolist() == wanted and not bad.any()


@EACH
@pytest.mark.parametrize("width", [1, 7, 600, 5000])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_largest_of_broken_rows(name: str, width: int, value: float) -> None:
    for at in {0, width // 2, width - 1}:
        logits = values(3, width, seed=at)
        logits[1, at] = value
        _, bad = Native(name).argmax(logits, np.arange(3))
        assert bad.tolist() == (~torch.isfinite(logits.amax(-1))).tolist()
    _, bad = Native(name).argmax(torch.full((1, width), -torch.inf), np.zeros(1, np.int64))
    assert bad.all()


def keys_of(rng: np.random.Generator, n: int) -> np.ndarray:
    """Keys of the noise of `n` draws."""
    return rng.integers(-(2**63), 2**63, n)


def like(drawn: int, weights: np.ndarray, key: int) -> bool:
    """Whether an id is the one that the definition draws, or comes in as good as first: rounding may decide then."""
    if drawn == slow_race(weights.tolist(), key):
        return True
    blocks = [float(weights[at : at + 256].sum()) for at in range(0, len(weights), 256)]
    times = [slow_noise(key, -1 - b) / w if w > 0 else np.inf for b, w in enumerate(blocks)]
    inside = range(drawn // 256 * 256, min(drawn // 256 * 256 + 256, len(weights)))
    best = min(slow_noise(key, i) / weights[i] for i in inside if weights[i] > 0)
    own = slow_noise(key, drawn) / weights[drawn] if weights[drawn] > 0 else np.inf
    return times[drawn // 256] <= min(times) * (1 + 1e-5) and own <= best * (1 + 1e-5)


@EACH
@settings(max_examples=40)
@given(rows=st.integers(1, 5), width=st.integers(1, 1500), seed=st.integers(0, 10**6), hot=st.booleans())
def test_draws_are_races(name: str, rows: int, width: int, seed: int, hot: bool) -> None:
    """Against float64, number by number; and the plain torch of the reference means the same."""
    rng, logits = np.random.default_rng(seed), values(rows, width, seed=seed, scale=4.0)
    logits[torch.from_numpy(rng.random((rows, width)) < 0.1)] = -torch.inf
    logits[:, rng.integers(width)] = 1.0
    which, noise = rng.integers(0, rows, 12), keys_of(rng, 12)
    heat = rng.choice([0.2, 0.7, 1.0, 3.0] if hot else [1.0], 12)
    native = Native(name)
    ids = native.draw(logits, which, native.argmax(logits, which)[0], heat, noise)
    plain = reference.weights(logits[which], torch.from_numpy(heat.astype(np.float32)).unsqueeze(-1))
    other = reference.race(plain, torch.from_numpy(noise))
    for i, row in enumerate(which):
        weights = np.exp((logits[row].double().numpy() - logits[row].max().item()) / heat[i])
        assert like(ids[i], weights, int(noise[i])) and like(int(other[i]), weights, int(noise[i]))


def filters_of(rng: np.random.Generator, n: int) -> Filters[np.ndarray]:
    """Every kind of filter alone, with the others, and none."""
    k, p = rng.choice([0, 0, 1, 2, 50, 5000], n), rng.choice([1.0, 1.0, 0.95, 0.5, 1e-9], n)
    return Filters(k.astype(np.int64), p, rng.choice([0.0, 0.0, 0.02, 0.5, 1.0], n))


@EACH
@settings(max_examples=40)
@given(width=st.integers(1, 1500), seed=st.integers(0, 10**6), scale=st.sampled_from((0.0, 0.01, 1.0, 30.0)))
def test_draws_pass_the_filters(name: str, width: int, seed: int, scale: float) -> None:
    """Against float64, token by token: the id is drawn from what the filters leave."""
    rng, n = np.random.default_rng(seed), 12
    logits = (values(3, width, seed=seed) * scale).round(decimals=1)  # many are equal
    logits[torch.from_numpy(rng.random((3, width)) < 0.1)] = -torch.inf
    logits[:, rng.integers(width)] = 0.5
    which, heat, noise = rng.integers(0, 3, n), rng.choice([0.6, 1.0, 2.0], n), keys_of(rng, n)
    filters, native = filters_of(rng, n), Native(name)
    k, p, floor = filters.columns
    ids = native.draw(logits, which, native.argmax(logits, which)[0], heat, noise, filters)
    for i, row in enumerate(which):
        x = logits[row].double().numpy()
        weights = np.exp((x - x.max()) / heat[i])
        sets = [kept(x, heat[i], k[i], p[i] * (1 + slack), floor[i] * (1 - slack)) for slack in (-1e-6, 1e-6)]
        assert sets[1][ids[i]] and weights[ids[i]] > 0
        if (sets[0] == sets[1]).all():  # else rounding may decide
            assert like(ids[i], np.where(sets[0], weights, 0.0), int(noise[i]))


@EACH
def test_filters_on_rows_of_one_value(name: str) -> None:
    """All of a row in one bucket, the first ids stay; each of them is drawn as often as the others."""
    native, logits = Native(name), torch.zeros(1, 4000)
    for k, p, stay in ((7, 1.0, 7), (0, 0.25, 1000), (100, 0.5, 50), (9000, 1.0, 4000), (0, 1e-12, 1)):
        noise, same = keys_of(np.random.default_rng(k), 400), np.zeros(400, np.int64)
        filters = Filters(np.full(400, k), np.full(400, p), np.zeros(400))
        drawn = native.draw(logits, same, same, np.ones(400), noise, filters)
        assert drawn.max() < stay
        counts = np.bincount(drawn // max(stay // 5, 1), minlength=1)
        assert counts.max() - counts.min() < 8 * counts.mean() ** 0.5 + 1


def test_the_most_likely_of_equals_are_the_first() -> None:
    table = values(50, 400, seed=3).round(decimals=1)
    for k in (1, 5, 20, 400):
        top, at = reference.most_likely(table, k)
        every, order = torch.sort(table, dim=-1, descending=True, stable=True)
        assert torch.equal(top, every[:, :k]) and torch.equal(at, order[:, :k])


@EACH
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_draw_does_not_depend_on_the_others(name: str, threads: int, filtered: bool) -> None:
    native, logits, rng = Native(name), values(40, 5000, seed=0), np.random.default_rng(0)
    which, heat, noise = rng.integers(0, 40, 64), rng.choice([0.5, 1.0, 1.3], 64), keys_of(rng, 64)
    filters, best = filters_of(rng, 64) if filtered else None, native.argmax(logits, which)[0]

    def draw_some(at: slice) -> np.ndarray:
        some = None if filters is None else filters.only(at)
        return native.draw(logits, which[at], best[at], heat[at], noise[at], some)

    torch.set_num_threads(threads)
    whole = draw_some(slice(None))
    for begin, end in ((0, 1), (3, 9), (17, 64)):
        assert (draw_some(slice(begin, end)) == whole[begin:end]).all()


@EACH
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_draws_from_broken_rows_stay_in_range(name: str, value: float) -> None:
    logits = torch.full((2, 700), value)
    logits[1, 300] = 1.0
    native, rows = Native(name), np.array([0, 1])
    for filters in (None, Filters(np.array([5, 5]), np.array([0.9, 0.9]), np.array([0.1, 0.1]))):
        best = native.argmax(logits, rows)[0]
        ids = native.draw(logits, rows, best, np.ones(2), np.array([5, -9]), filters)
        assert ((ids >= 0) & (ids < 700)).all()


@EACH
@KINDS
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("width", [48, 61, 576])
def test_a_row_does_not_depend_on_its_neighbours(name: str, dtype: torch.dtype, width: int, threads: int) -> None:
    native = Native(name)
    weight = values(width, seed=1, dtype=dtype)
    x, delta = (values(300, width, seed=seed, dtype=dtype) for seed in (2, 3))
    half = width // 2
    acts: list[Callable[[slice], Tensor]] = [
        lambda at: native.rms_norm(x[at], weight, EPS),
        lambda at: native.add_rms_norm(x[at], delta[at], weight, EPS)[1],
        lambda at: native.gated_silu(x[at][:, : 2 * half].contiguous()),
    ]
    torch.set_num_threads(threads)
    for act in acts:
        whole = act(slice(None))
        for begin, end in ((0, 1), (3, 5), (100, 133), (1, 300)):
            assert torch.equal(act(slice(begin, end)), whole[begin:end])


def test_shapes_are_checked() -> None:
    if not INSTRUCTION_SETS:
        pytest.skip("no compiled kernels here")
    native = Native(INSTRUCTION_SETS[0])
    x = torch.zeros(3, 8)
    with pytest.raises(ValueError):
        native.rms_norm(x, torch.zeros(7), EPS)
    with pytest.raises(ValueError):
        native.add_rms_norm(x, torch.zeros(2, 8), torch.zeros(8), EPS)
    with pytest.raises(IndexError):
        native.argmax(x, np.array([3]))
    one, warm = np.zeros(1, np.int64), np.ones(1)
    with pytest.raises(TypeError):
        native.draw(x.bfloat16(), one, one, warm, warm / 2)
    with pytest.raises(IndexError):
        native.draw(x, one, one + 8, warm, warm / 2)
    with pytest.raises(ValueError):
        native.draw(x, one, one, warm, np.ones(2) / 2)
    assert native.takes(x) and native.takes(x.bfloat16(), x.bfloat16())
    assert not native.takes(x.t()) and not native.takes(x.half()) and not native.takes(x, x.bfloat16())
    with pytest.raises(TypeError):
        native.argmax(x.bfloat16(), np.array([0]))
