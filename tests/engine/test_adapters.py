"""Rows with adapters: the bits that they have alone, KV that no other adapter reads, adapters that are read once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import umbel
from tests.adapters import ATTENTION, write_adapter
from tests.engine.test_gpu_path import on_gpu_kernels
from tests.parameters import few_of
from tests.tiny_models import make_model
from umbel.api import LLM, RequestOutput
from umbel.errors import ModelError, UsageError
from umbel.ir.params import SamplingParams
from umbel.kernels.dispatch import kernels
from umbel.kernels.native.products import has_products

SHARED = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]
PROMPTS = [[*SHARED, 30 + i % 3, *range(40, 40 + 5 * (i % 4))] for i in range(8)]
NAMES = (None, "wide", "thin", "part")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("adapted") / "model", "qwen3", seed=1)


@pytest.fixture(scope="module")
def lora(base: Path) -> dict[str, str]:
    """Ranks and modules that differ: all of them, those of attention, one in one layer."""
    place = base.parent
    write_adapter(place / "wide", base, rank=16, seed=1)
    write_adapter(place / "thin", base, ATTENTION, rank=3, ranks={"k_proj": 5}, seed=2)
    write_adapter(place / "part", base, ("gate_proj", "o_proj"), rank=4, layers=[1], seed=3)
    return {name: str(place / name) for name in NAMES if name is not None}


def asking(name: str | None, i: int) -> SamplingParams:
    """What row i asks for: some are greedy, some drawn, some scored."""
    drawn = {"temperature": 0.8, "seed": i} if i % 2 else {"temperature": 0.0}
    scored = {"prompt_logprobs": 1} if i % 4 == 2 else {}
    return SamplingParams(**drawn, **scored, max_tokens=5, ignore_eos=True, logprobs=2, lora=name)


def bits(outputs: Sequence[RequestOutput]) -> list[Any]:
    """Tokens and log-probabilities of each row."""
    assert all(output.error is None for output in outputs), [output.error for output in outputs]
    return [(o.outputs[0].token_ids, o.outputs[0].logprobs, o.prompt_logprobs) for o in outputs]


LOSSY = {"allow_lossy": True}
FORMS = few_of(
    [({"dtype": "float32"},), ({"dtype": "bfloat16"},), ({"dtype": "bfloat16", "linear": "int8", **LOSSY},)],
    [
        ({"dtype": "bfloat16", "linear": "int4", **LOSSY},),
        ({"dtype": "float32", "linear": "int8", **LOSSY},),
        ({"dtype": "float32", "linear": "int4-head8", **LOSSY},),
    ],
)


@pytest.mark.parametrize(("form",), FORMS)
def test_a_row_has_the_bits_that_it_has_alone(form: dict[str, Any], base: Path, lora: dict[str, str]) -> None:
    if form != {"dtype": "float32"} and not has_products(getattr(torch, form["dtype"]), kernels().name):
        pytest.skip(f"products in {form['dtype']} are torch's here, whose bits depend on the rows beside")
    llm, plain = (LLM(str(base), device="cpu", threads=1, **form, lora=given) for given in (lora, {}))
    rows = [(NAMES[i % 4], prompt, i) for i, prompt in enumerate(PROMPTS)] + [(NAMES[1], p, 9) for p in PROMPTS[:3]]
    params = [asking(name, i) for name, _, i in rows]
    together = bits(llm.generate([prompt for _, prompt, _ in rows], params))
    alone = [bits(llm.generate([prompt], p))[0] for (_, prompt, _), p in zip(rows, params, strict=True)]
    assert together == alone
    of_base = [i for i, (name, _, _) in enumerate(rows) if name is None]
    assert [together[i] for i in of_base] == bits(
        plain.generate([rows[i][1] for i in of_base], [params[i] for i in of_base])
    )
    same = [bits(llm.generate([PROMPTS[0]], asking(name, 0)))[0] for name in NAMES]
    assert len({str(one) for one in same}) == len(NAMES), "each adapter does something of its own"


def test_rows_share_kv_with_rows_of_their_adapter_only(base: Path, lora: dict[str, str]) -> None:
    llm = LLM(str(base), dtype="float32", device="cpu", threads=1, lora=lora)
    params = SamplingParams(temperature=0.0, max_tokens=2)
    for names, computed in (
        ((None, None), 1),
        (("wide", "wide"), 1),
        (("wide", "thin"), 2),
        ((None, "wide", "part"), 3),
    ):
        before = llm.stats().computed_prompt_tokens
        outputs = llm.generate([SHARED] * len(names), [params.clone(lora=name) for name in names])
        assert llm.stats().computed_prompt_tokens - before == computed * len(SHARED)
        assert len({output.outputs[0].token_ids for output in outputs}) == len(set(names))


def test_each_adapter_is_read_once(base: Path, lora: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows alternate in the input, there is room for two adapters and for two rows."""
    monkeypatch.setattr("umbel.ir.adapter.KEPT_BYTES", 0)
    many = {f"a{i}": str(write_adapter(base.parent / f"a{i}", base, ATTENTION, seed=i)) for i in range(6)}
    prompts, params = PROMPTS * 3, [SamplingParams(temperature=0.0, max_tokens=4, lora=f"a{i % 6}") for i in range(24)]
    for options, loads in (({}, 6), ({"prefix": "none"}, 6)):
        llm = LLM(str(base), dtype="float32", device="cpu", threads=1, kv_tokens=160, lora=many, **options)
        plan = llm.plan(prompts, params)
        assert "24 rows" in plan.explain() and "a0 4, a1 4" in plan.explain()
        found = bits(llm.generate(prompts, params))
        assert llm.stats().adapter_loads == loads
    mixed = LLM(
        str(base), dtype="float32", device="cpu", threads=1, kv_tokens=160, lora=many, prefix="none", skip=("order",)
    )
    assert bits(mixed.generate(prompts, params)) == found, "an order does not change answers"
    assert mixed.stats().adapter_loads > 6, "nor is it for nothing"


def test_adapters_as_vllm_takes_them(base: Path, lora: dict[str, str]) -> None:
    given = LLM(str(base), dtype="float32", device="cpu", threads=1, lora=lora)
    llm = LLM(str(base), dtype="float32", device="cpu", threads=1, enable_lora=True, max_loras=4, max_lora_rank=64)
    params = SamplingParams(temperature=0.0, max_tokens=4)
    for name in ("wide", "thin"):
        wanted = bits(given.generate(PROMPTS[:2], params.clone(lora=name)))
        theirs = SimpleNamespace(lora_name=name, lora_int_id=1, lora_path=lora[name])  # the shape of vLLM's record
        for request in (umbel.LoRARequest(name, 1, lora[name]), theirs, name, [umbel.LoRARequest(name)] * 2):
            assert bits(llm.generate(PROMPTS[:2], params, lora_request=request)) == wanted
    mixed = llm.generate(PROMPTS[:2], params, lora_request=[None, "thin"])
    assert bits(mixed) == [
        bits(given.generate(PROMPTS[:1], params))[0],
        bits(given.generate(PROMPTS[1:2], params.clone(lora="thin")))[0],
    ]
    (unknown, fine) = llm.generate(PROMPTS[:2], params, lora_request=["swedish", "thin"])
    assert (
        unknown.error is not None and unknown.error.code == "model_not_found" and "wide, thin" in unknown.error.message
    )
    assert fine.error is None
    with pytest.raises(UsageError, match="'wide' is the adapter in"):
        llm.generate(PROMPTS[:1], params, lora_request=umbel.LoRARequest("wide", 1, lora["thin"]))
    with pytest.raises(ModelError, match="adapter 'bad'"):
        llm.generate(PROMPTS[:1], params, lora_request=umbel.LoRARequest("bad", 1, str(base)))
    with pytest.raises(UsageError, match="2 prompts but 1 lora requests"):
        llm.generate(PROMPTS[:2], params, lora_request=["wide"])
    with pytest.raises(UsageError, match="give LoRARequest"):
        llm.generate(PROMPTS[:2], params, lora_request=object())


def test_files_that_change_after_they_were_checked_are_noticed(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path, base, seed=1)
    llm = LLM(str(base), dtype="float32", device="cpu", threads=1, lora={"a": str(tmp_path)})
    write_adapter(tmp_path, base, seed=2)
    with pytest.raises(ModelError, match=r"adapter 'a' .*have changed since they were checked"):
        llm.generate(PROMPTS[:1], SamplingParams(max_tokens=1), lora_request="a")


def test_a_session_answers_with_adapters(base: Path, lora: dict[str, str]) -> None:
    llm = LLM(str(base), dtype="float32", device="cpu", threads=1, lora=lora)
    params = [asking(name, 0) for name in NAMES]
    wanted = bits(llm.generate([PROMPTS[1]] * 4, params))
    with llm.session() as session:
        first = session.add([PROMPTS[1]] * 2, params[:2])
        for _ in range(2):
            next(session)
        tickets = [*first, *session.add([PROMPTS[1]] * 2, params[2:])]
        session.close()
        found = {event.ticket: event.output for event in session if event.output is not None}
    assert [bits([found[ticket]])[0] for ticket in tickets if ticket in found] == [
        wanted[i] for i, ticket in enumerate(tickets) if ticket in found
    ]
    assert len(found) >= 2


@pytest.mark.slow
def test_adapters_on_the_kernels_of_gpus(base: Path, lora: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    params = [SamplingParams(temperature=0.0, max_tokens=3, lora=name) for name in NAMES]
    wanted = LLM(str(base), dtype="float32", device="cpu", lora=lora).generate(PROMPTS[:4], params)
    if not torch.cuda.is_available():
        made = on_gpu_kernels(monkeypatch)
    got = LLM(str(base), dtype="float32", device="auto", lora=lora).generate(PROMPTS[:4], params)
    assert [o.outputs[0].token_ids for o in got] == [o.outputs[0].token_ids for o in wanted]
    assert torch.cuda.is_available() or made, "the kernels were not asked"
