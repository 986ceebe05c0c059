"""Routers and experts: who is chosen, what a row does not depend on, the same through the kernels of GPUs, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.triton_rows import use_triton_rows
from umbel.errors import UsageError
from umbel.ir.experts import Experts, Router
from umbel.ir.spec import ModelSpec
from umbel.kernels import reference
from umbel.linear.dense import DenseMethod
from umbel.linear.experts import GroupedProducts, SingleProducts, check_experts
from umbel.linear.fp8 import Fp8Method
from umbel.linear.int4 import Int4Method
from umbel.models.batch import ForwardBatch
from umbel.models.moe import ExpertBlock
from umbel.models.router import choose_experts
from umbel.models.shards import Shard, build_shard

HIDDEN, WIDE = 32, 24
BATCH = ForwardBatch((torch.empty(0), torch.empty(0)))  # no angles: a block does not look at them


def weights_of(experts: Experts, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = {
        "router": (experts.count, HIDDEN),
        "experts_gate_up": (experts.count * 2 * WIDE, HIDDEN),
        "experts_down": (experts.count * HIDDEN, WIDE),
    }
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def rows_of(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn((n, HIDDEN), generator=torch.Generator().manual_seed(6)).to(dtype)


def plainly(x: Tensor, weights: dict[str, Tensor], experts: Experts) -> Tensor:
    """Row by row in float64, from the definition."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    gate_up = w["experts_gate_up"].view(experts.count, 2, WIDE, HIDDEN)
    down = w["experts_down"].view(experts.count, HIDDEN, WIDE)
    out = []
    for row in x.double():
        likely = (w["router"] @ row).softmax(-1)
        chosen = sorted(range(experts.count), key=lambda e: (-likely[e], e))[: experts.per_token]
        total = sum(likely[e] for e in chosen) if experts.router.normalised else 1.0
        terms = [
            likely[e] / total * (down[e] @ (torch.nn.functional.silu(gate_up[e, 0] @ row) * (gate_up[e, 1] @ row)))
            for e in chosen
        ]
        out.append(torch.stack(terms).sum(0))
    return torch.stack(out)


def test_the_likeliest_are_chosen_and_of_equal_ones_the_first() -> None:
    logits = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0], [2.0, -1.0, 2.0, 3.0, 2.0], [7.0, 7.0, 7.0, 7.0, 7.0]])
    ids, shares = choose_experts(logits, Experts(5, 3, 1, router=Router(normalised=True)))
    assert ids.tolist() == [[1, 2, 4], [3, 0, 2], [0, 1, 2]]
    torch.testing.assert_close(shares.sum(-1), torch.ones(3))
    _, shares = choose_experts(logits, Experts(5, 3, 1, router=Router()))
    torch.testing.assert_close(shares, logits.softmax(-1).gather(1, ids))
    many = torch.zeros(300, 200)
    ids, _ = choose_experts(many, Experts(200, 9, 1, router=Router(normalised=True)))
    assert (ids == torch.arange(9)).all()


@pytest.mark.parametrize("renormalised", [False, True])
@pytest.mark.parametrize(("count", "per_token"), [(8, 3), (4, 4), (64, 1), (1, 1)])
def test_blocks_are_what_they_are_defined_to_be(count: int, per_token: int, renormalised: bool) -> None:
    experts = Experts(count, per_token, WIDE, Router(normalised=renormalised))
    weights, x = weights_of(experts), rows_of(50)
    got = ExpertBlock.of(weights, DenseMethod(), experts).apply(x, BATCH)
    torch.testing.assert_close(got.double(), plainly(x, weights, experts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("count", "per_token", "threads"), [(8, 3, 1), (4, 2, 1), (128, 8, 1), (60, 4, 1), (8, 3, 2)], ids=str
)
def test_a_row_does_not_know_its_neighbours_to_the_last_bit(count: int, per_token: int, threads: int) -> None:
    experts = Experts(count, per_token, WIDE, router=Router(normalised=True))
    block, x = ExpertBlock.of(weights_of(experts), DenseMethod(), experts), rows_of(400)
    whole = block.apply(x, BATCH)
    torch.set_num_threads(threads)
    for size in (*range(1, 20), 31, 64, 127, 399) if threads == 1 else (1, 5, 11, 130):
        for begin in (0, 1, 400 - size):
            assert torch.equal(block.apply(x[begin : begin + size], BATCH), whole[begin : begin + size]), size
    shuffled = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    assert torch.equal(block.apply(x[shuffled], BATCH), whole[shuffled])
    assert block.apply(x[:0], BATCH).shape == (0, HIDDEN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_the_kernels_of_gpus_say_the_same(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Triton's interpreter, which cuts float32 down to bfloat16 where a GPU rounds."""
    experts = Experts(8, 3, WIDE, router=Router(normalised=True))
    weights, x = weights_of(experts, dtype), rows_of(70, dtype)
    wanted = ExpertBlock.of(weights, DenseMethod(), experts)
    assert isinstance(wanted.products, SingleProducts)
    single = wanted.apply(x, BATCH)
    use_triton_rows(monkeypatch)
    tested = ExpertBlock.of(weights, DenseMethod(), experts)
    assert isinstance(tested.products, GroupedProducts)
    tolerance = 1e-4 if dtype == torch.float32 else 2.0**-4
    got = tested.apply(x, BATCH)
    torch.testing.assert_close(got, single, rtol=tolerance, atol=tolerance * float(single.float().abs().mean()))
    assert tested.apply(x[:0], BATCH).shape == (0, HIDDEN)


def test_ranges_without_rows() -> None:
    x, weights = rows_of(5), torch.randn(4, 3, HIDDEN)
    got = reference.by_expert(x, weights, torch.tensor([0, 2, 2, 5]))
    torch.testing.assert_close(got, torch.cat((x[:2] @ weights[1].T, x[2:] @ weights[3].T)))


@pytest.mark.parametrize("name", ["fp8", "int4"])
def test_rounded_experts_stay_near_and_need_a_processor(name: str) -> None:
    experts, dense = Experts(8, 3, WIDE, router=Router(normalised=True)), DenseMethod()
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    method = Fp8Method(cpu, dense) if name == "fp8" else Int4Method(torch.float32, dense, rounds=True)
    weights, x = weights_of(experts), rows_of(50)
    exact = ExpertBlock.of(weights, dense, experts).apply(x, BATCH)
    got = ExpertBlock.of(weights, method, experts).apply(x, BATCH)
    assert 0 < (got - exact).std() < 0.3 * exact.std()
    check_experts(method, cpu)
    check_experts(dense, gpu)
    spec = ModelSpec("mixtral", 97, HIDDEN, 1, 2, 2, 16, WIDE, 64, 1e-6, 1e4, experts=experts)
    with pytest.raises(UsageError, match="leave linear"):
        build_shard(spec, {}, Shard(), gpu, method)  # before any weight is asked for
