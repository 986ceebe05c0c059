"""Members of an evolution strategy: what explicitly changed weights give, mirrored by the next member."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.models.zoo import make_zoo_model
from tests.parameters import few_of
from umbel.api import LLM
from umbel.errors import ModelError, UsageError
from umbel.ir.params import SamplingParams
from umbel.models.adapters.seeded import Member

PROMPT = [(7 * i) % 300 + 3 for i in range(30)]
MATRIX = re.compile(r".*\.(attention|self_attn|attn|mlp|self_attention)\..*\.?weight|.*\.fc[12]\.weight")


@pytest.mark.parametrize(("name",), few_of([("qwen3",), ("neox",)], [("gpt2",), ("phi3",), ("gemma2",), ("glm4",)]))
def test_a_member_is_the_model_with_changed_weights(name: str, tmp_path: Path) -> None:
    """Each in a batch of members and the model itself, against transformers with the sums written into its weights."""
    members = [Member(7, 4, 0.0005), Member(7, 5, 0.0005), Member(7, 4, 0.03, rank=3), Member(8, 4, 0.05, epoch=2)]
    asked = {f"m{i}": _text(member) for i, member in enumerate(members)}
    make_zoo_model(tmp_path / "model", name)
    with LLM(str(tmp_path / "model"), dtype="float32", device="cpu", threads=1, lora=asked) as llm:
        rows = [None, *asked]
        params = [SamplingParams(temperature=0, max_tokens=4, prompt_logprobs=0, lora=row) for row in rows]
        outputs = llm.generate([PROMPT] * len(rows), params)
        assert llm.spec.adapters[2].weights == 3 * llm.spec.adapters[0].weights
    scores = [[next(iter(each.values())).logprob for each in o.prompt_logprobs[1:]] for o in outputs]  # type: ignore
    for member, found in zip([None, *members], scores, strict=True):
        torch.testing.assert_close(torch.tensor(found), _expected(tmp_path, name, member), atol=1e-4, rtol=0)
    plain, even, odd = (torch.tensor(found) for found in scores[:3])
    assert (even - plain).abs().max() > 10 * ((even + odd) / 2 - plain).abs().max() > 0, "mirrored to first order"


def _text(member: Member) -> str:
    more = f"rank={member.rank},epoch={member.epoch}"
    return f"eggroll:seed={member.seed},member={member.member},sigma={member.sigma},{more}"


@torch.inference_mode()
def _expected(place: Path, name: str, member: Member | None) -> torch.Tensor:
    """Log-probabilities of the prompt by transformers."""
    model = make_zoo_model(place / "again", name)
    for own, weight in model.named_parameters() if member is not None else ():
        if weight.ndim == 2 and MATRIX.fullmatch(own):
            turned = name == "gpt2"  # which keeps inputs first
            outputs, inputs = weight.shape[::-1] if turned else weight.shape
            assert member is not None
            a, b = (torch.from_numpy(each) for each in member.factors(own.removesuffix(".weight"), (outputs, inputs)))
            change = a @ b.T * (member.sigma / member.rank**0.5) * (-1) ** member.member
            weight.add_(change.T if turned else change)
    logits = model(torch.tensor([PROMPT])).logits[0].log_softmax(-1)
    return logits[:-1].gather(1, torch.tensor(PROMPT[1:])[:, None])[:, 0]


def test_a_search_by_members_lowers_a_loss(tmp_path: Path) -> None:
    """The strategy's own loop: the mean of the members, weighted by their standardised fitness, is a way down."""
    make_zoo_model(tmp_path / "model", "qwen3")
    asked = {f"m{i}": f"eggroll:seed=1,member={i},sigma=0.02" for i in range(64)}
    with LLM(str(tmp_path / "model"), dtype="float32", device="cpu", threads=1, lora=asked) as llm:
        params = [SamplingParams(max_tokens=1, prompt_logprobs=0, lora=row) for row in asked]
        outputs = llm.generate([PROMPT] * len(asked), params)
    fitness = torch.tensor([sum(next(iter(e.values())).logprob for e in o.prompt_logprobs[1:]) for o in outputs])  # type: ignore
    weights = (fitness - fitness.mean()) / fitness.std()
    model = make_zoo_model(tmp_path / "again", "qwen3")
    with torch.inference_mode():
        before = model(torch.tensor([PROMPT]), labels=torch.tensor([PROMPT])).loss
        for own, weight in model.named_parameters():
            if weight.ndim == 2 and MATRIX.fullmatch(own):
                for i, share in enumerate(weights.tolist()):
                    member = Member(1, i, 0.02)
                    a, b = (
                        torch.from_numpy(x) for x in member.factors(own.removesuffix(".weight"), tuple(weight.shape))
                    )
                    weight.add_(0.5 * share / len(asked) * member.scale * (a @ b.T))
        after = model(torch.tensor([PROMPT]), labels=torch.tensor([PROMPT])).loss
    assert after < before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("eggroll:seed=1,member=2", "sigma is missing"),
        ("eggroll:seed=1,member=2,sigma=x", "'sigma=x' must be"),
        ("eggroll:seed=1,member=-2,sigma=1", "numbers from 0 on"),
        ("eggroll:seed=1,member=2,sigma=1,rank=99", "rank from 1 to 64"),
        ("eggroll:seed=1,member=2,sigma=1,layers=3", "'layers=3' must be one of"),
    ],
)
def test_what_is_no_member_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        LLM("demo", lora={"a": text})


def test_models_that_cannot_have_one_are_named(tmp_path: Path) -> None:
    make_zoo_model(tmp_path / "model", "lfm2")
    with pytest.raises(ModelError, match=r"adapter 'a' .*layers that keep a state"):
        LLM(str(tmp_path / "model"), device="cpu", lora={"a": "eggroll:seed=1,member=0,sigma=0.1"})
