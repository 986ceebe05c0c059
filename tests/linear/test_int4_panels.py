"""Products of a processor from nibbles: against float64 on what was rounded, the same on every instruction set."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tests.int4_models import Kind, make_pair
from umbel import LLM, SamplingParams
from umbel.cost.packed import product_bytes
from umbel.errors import UsageError
from umbel.ir.architecture import Matmul
from umbel.ir.int4_format import LOADING
from umbel.kernels import reference
from umbel.kernels.dispatch import KernelChoice
from umbel.kernels.int4 import Int4Weight, pack_nibbles, round_to_int4
from umbel.kernels.native.calls import INSTRUCTION_SETS
from umbel.kernels.native.products_int4 import Int4Products, group_for, int4_panels
from umbel.linear import int4
from umbel.linear.dense import DenseLinear, DenseMethod
from umbel.linear.int4 import Int4Method, Int4PanelLinear
from umbel.linear.pick import pick_linear

CPU = torch.device("cpu")
NEEDS_NATIVE = pytest.mark.skipif(not INSTRUCTION_SETS, reason="nothing was compiled")
EACH = pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in INSTRUCTION_SETS])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
# (outputs, inputs, group): parts of a panel, a model's layer, one group for all, groups that the kernels cut
SHAPES = [(2, 8, 8), (34, 48, 16), (130, 256, 128), (64, 1024, 128), (70, 768, 768), (66, 200, 40), (1, 272, 272)]


def values(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def weights(outputs: int, inputs: int, group: int) -> Int4Weight:
    """Any nibbles, zeros and scales, not only those that rounding finds."""
    generator = torch.Generator().manual_seed(outputs)
    groups = inputs // group
    scales = torch.randn(outputs, groups, generator=generator).to(torch.float16)
    zeros = torch.randint(0, 16, (outputs, groups), generator=generator, dtype=torch.uint8)
    return Int4Weight(pack_nibbles(torch.randint(0, 16, (outputs, inputs), generator=generator)), scales, zeros, group)


def in_int8(x: Tensor, group: int) -> Tensor:
    """Each group of a row as the nearest of 255 equal steps up to its largest value, in float64."""
    wide = x.float().view(len(x), -1, group)
    most = wide.abs().amax(2, keepdim=True)
    steps = torch.where(most > 0, torch.full_like(most, 127.0) / most, 0.0)  # not a product with the reciprocal
    return ((wide * steps).round().double() * (most / 127).double()).flatten(1)


def method(name: str, dtype: torch.dtype) -> Int4Method:
    return Int4Method(dtype, DenseMethod(), rounds=True, products=Int4Products(name))


@EACH
@DTYPES
@pytest.mark.parametrize(("outputs", "inputs", "group"), SHAPES)
@pytest.mark.parametrize("biased", [False, True])
def test_it_is_the_product_of_what_was_rounded(
    name: str, dtype: torch.dtype, outputs: int, inputs: int, group: int, biased: bool
) -> None:
    weight, x = weights(outputs, inputs, group), values(23, inputs, seed=2, dtype=dtype)
    x[3] = 0
    bias = values(outputs, seed=3, dtype=dtype) if biased else None
    linear = method(name, dtype).convert(weight, bias)
    assert isinstance(linear, Int4PanelLinear) and group_for(weight) == linear.weight.group
    got = linear.apply(x)
    rows, wide = in_int8(x, linear.weight.group), weight.floats(torch.float32).double()
    extra = bias.double() if bias is not None else torch.zeros(outputs, dtype=torch.float64)
    truth = rows @ wide.T + extra
    scale = rows.abs() @ wide.abs().T + extra.abs()
    step = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-22
    assert got.dtype == dtype
    assert ((got.double() - truth).abs() <= step * truth.abs() + 2.0**-19 * scale + 1e-30).all()


@EACH
@DTYPES
@pytest.mark.parametrize(("outputs", "inputs"), [(34, 48), (130, 256)])
def test_a_gate_behind_it_is_that_of_the_reference(name: str, dtype: torch.dtype, outputs: int, inputs: int) -> None:
    weight, x = weights(outputs, inputs, 16), values(9, inputs, seed=2, dtype=dtype)
    bias, made = values(outputs, seed=3, dtype=dtype), method(name, dtype)
    got = made.convert(weight, bias, gated=True).apply(x)
    wanted = reference.gated_silu(made.convert(weight, bias).apply(x))
    torch.testing.assert_close(got, wanted, rtol=2.0**-7 if dtype == torch.bfloat16 else 2e-6, atol=1e-6)


@EACH
def test_a_row_does_not_depend_on_its_neighbours(name: str) -> None:
    """To the last bit, and on any number of threads; a row that is not finite keeps that to itself."""
    linear = method(name, torch.float32).convert(weights(130, 256, 64))
    x = values(700, 256, seed=2)
    whole = linear.apply(x)
    for begin, n in ((0, 1), (7, 2), (30, 3), (40, 5), (100, 17), (200, 33), (9, 600)):
        assert torch.equal(linear.apply(x[begin : begin + n]), whole[begin : begin + n])
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    assert torch.equal(linear.apply(x), whole)
    torch.set_num_threads(before)
    x[1, 4], x[3, 255] = torch.nan, -torch.inf
    got = linear.apply(x[:5])
    assert got[[1, 3]].isnan().all() and torch.equal(got[[0, 2, 4]], whole[[0, 2, 4]])


@pytest.mark.skipif(len(INSTRUCTION_SETS) < 2, reason="fewer than two instruction sets to compare")
@pytest.mark.parametrize("rows", [1, 7, 40, 70])
def test_it_has_the_same_bits_on_every_instruction_set(rows: int) -> None:
    for outputs, inputs, group in ((200, 192, 64), (130, 256, 128), (66, 120, 24)):
        weight, x = weights(outputs, inputs, group), values(rows, inputs, seed=2, dtype=torch.bfloat16)
        first, *others = (method(name, torch.bfloat16).convert(weight).apply(x) for name in INSTRUCTION_SETS)
        assert all(torch.equal(first, other) for other in others)


@NEEDS_NATIVE
def test_the_price_counts_what_panels_take() -> None:
    form, spec = replace(LOADING, on_cpu=True), SimpleNamespace(quantization=replace(LOADING, on_cpu=True))
    for inputs in (1024, 192, 104):
        panels = int4_panels(round_to_int4(values(128, inputs, seed=1), form.group_of(inputs)))
        assert panels is not None
        counted = product_bytes(spec, 0, Matmul("down", inputs, (128,), "inputs"), 2)  # type: ignore[arg-type]
        assert counted == panels.packed.panels.numel() * 4


@NEEDS_NATIVE
def test_what_fills_no_octets_stays_floats() -> None:
    made = method(INSTRUCTION_SETS[0], torch.float32)
    for inputs in (36, 33):
        weight = values(12, inputs, seed=1)
        linear = made.convert(weight)
        rounded = weight if inputs == 33 else round_to_int4(weight, 4).floats(torch.float32)
        assert isinstance(linear, DenseLinear) and torch.equal(linear.weight, rounded)
    tail = Int4Weight(*(torch.zeros(2, n, dtype=torch.uint8) for n in (12, 2, 2)), 16)  # 24 inputs in groups of 16
    assert int4_panels(tail) is None


def test_a_processor_without_compiled_kernels_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int4, "kernels", lambda: KernelChoice(None, "nothing was compiled"))
    with pytest.raises(UsageError, match=r"int4.*nothing was compiled"):
        pick_linear(torch.float32, CPU, "int4")
    assert pick_linear(torch.float32, CPU, packed=True).rounds is False  # type: ignore[attr-defined]


@NEEDS_NATIVE
@pytest.mark.parametrize("kind", [Kind("awq", 16), Kind("gptq", 16, plain=("down_proj",))], ids=["awq", "gptq"])
def test_a_checkpoint_multiplies_in_int8_if_asked(tmp_path_factory: pytest.TempPathFactory, kind: Kind) -> None:
    """Without asking it has the tokens of its own floats; asked, alone as among others."""
    directory = str(make_pair(tmp_path_factory.mktemp("asked"), kind)[0])
    params = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True, logprobs=1)
    prompts = [[5 + i, 9, 30 + i % 3, 7] * (1 + i % 3) for i in range(7)]
    with pytest.raises(UsageError, match="allow_lossy"):
        LLM(directory, device="cpu", linear="int4")
    asked = LLM(directory, device="cpu", dtype="float32", linear="int4", allow_lossy=True, threads=1)
    own = LLM(directory, device="cpu", dtype="float32", threads=1)
    qkv, plain = (llm.engine.model.decoder.layers[0].qkv for llm in (asked, own))
    assert isinstance(qkv, Int4PanelLinear) and not isinstance(plain, Int4PanelLinear)
    together = asked.generate(prompts, params)
    for prompt, among in zip(prompts, together, strict=True):
        (alone,) = asked.generate([prompt], params)
        assert alone.outputs[0].token_ids == among.outputs[0].token_ids
        assert alone.outputs[0].cumulative_logprob == among.outputs[0].cumulative_logprob
