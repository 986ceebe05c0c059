"""The part `checks`: answers on the device are those of transformers, of a plain decoder, and of themselves.

Greedy tokens in float32, of tiny random models of each family; the best token at every position in bfloat16, of the
demo model, which was trained; all tokens and log-probabilities of two runs, to the bit. Where float32 itself is in
doubt (the oracle's best two logits closer than NOISE), what follows in that row does not count; how many rows is said.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from bench.gpu.beside import load_test_module
from bench.gpu.plain import PlainModel
from bench.gpu.stage import Stage
from umbel.api import LLM, RequestOutput
from umbel.ir.chat import Chat
from umbel.ir.params import SamplingParams
from umbel.kernels.dispatch import gpu_kernels
from umbel.models.families import resolve_model
from umbel.text.tokenizer import Tokenizer

Prompts = list[list[int]]
Answers = list[tuple[int, ...]]
Ask = Callable[[Path, Prompts, int], tuple[Answers, list[list[float]]]]
NOISE = 1e-4
TOP_1 = 0.995
TASKS = Path(__file__).parents[2] / "examples" / "tasks.jsonl"


def check_answers(stage: Stage) -> None:
    """All checks, the cheapest first."""
    with _no_history():
        for family in stage.each(
            "the families", ("llama",) if stage.small else ("llama", "qwen2", "qwen3", "mistral"), 5.0
        ):
            _check_family(stage, family)
        if stage.left > 10 or stage.small:
            _check_bits(stage)
        if stage.left > 10 or stage.small:
            _check_top_1(stage)


@contextmanager
def _no_history() -> Iterator[None]:
    """Plans that no earlier run has a say in: two runs of a job are then the same steps."""
    before = os.environ.get("UMBEL_CACHE")
    os.environ["UMBEL_CACHE"] = "off"
    try:
        yield
    finally:
        os.environ.pop("UMBEL_CACHE") if before is None else os.environ.update(UMBEL_CACHE=before)


@contextmanager
def _without_triton() -> Iterator[None]:
    """The same device on plain torch."""
    before = os.environ.get("UMBEL_TRITON")
    os.environ["UMBEL_TRITON"] = "0"
    gpu_kernels.cache_clear()
    try:
        yield
    finally:
        os.environ.pop("UMBEL_TRITON") if before is None else os.environ.update(UMBEL_TRITON=before)
        gpu_kernels.cache_clear()


def make_prompts(vocab: int, *, small: bool) -> Prompts:
    """Prompts around the borders of pages and tiles; every second one begins like another."""
    rng = random.Random(3)
    lengths = (3, 17, 40) if small else (1, 2, 15, 16, 17, 31, 33, 64, 65, 100, 127, 128, 129, 200, 255, 257)
    base = [rng.randrange(3, vocab) for _ in range(max(lengths))]
    return [
        [*(base[:-4] if i % 2 else [rng.randrange(3, vocab) for _ in base])[: n - 1], rng.randrange(3, vocab)]
        for i, n in enumerate(lengths)
    ]


def _check_family(stage: Stage, family: str) -> None:
    writer = load_test_module("tiny_models.py")
    directory = writer.make_model(stage.scratch / family, family, seed=11)
    prompts, n = make_prompts(writer.VOCAB_SIZE, small=stage.small), 4 if stage.small else 24
    ours = _greedy_by_us(stage, directory, prompts, n)
    leads: list[list[float]] = []
    for name, ask in ORACLES.items():
        if name == "transformers" and find_spec("transformers") is None:
            stage.found.note("transformers is not installed: left out")
            continue
        answers, leads = ask(directory, prompts, n)
        compare(stage, f"{family}, float32, against {name}", ours, answers, leads)
    with _without_triton():
        plain = _greedy_by_us(stage, directory, prompts, n)
    compare(stage, f"{family}, float32, against our plain torch", ours, plain, leads)


def _greedy_by_us(stage: Stage, directory: Path, prompts: Prompts, n: int) -> Answers:
    llm = LLM(str(directory), dtype="float32", device=str(stage.device), chunk=96)
    return [tokens_of(o) for o in llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True))]


def tokens_of(output: RequestOutput) -> tuple[int, ...]:
    """The tokens of the only sample; none of a row that failed."""
    return output.outputs[0].token_ids if output.outputs else ()


def _by_transformers(directory: Path, prompts: Prompts, n: int) -> tuple[Answers, list[list[float]]]:
    answers = load_test_module("oracle/hf.py").greedy(directory, prompts, n)
    return [tuple(a.ids) for a in answers], [a.margins for a in answers]


def _by_plain_model(directory: Path, prompts: Prompts, n: int) -> tuple[Answers, list[list[float]]]:
    found = [PlainModel(directory).greedy(prompt, n) for prompt in prompts]
    return [tuple(ids) for ids, _ in found], [leads for _, leads in found]


ORACLES: Mapping[str, Ask] = MappingProxyType({"transformers": _by_transformers, "a plain decoder": _by_plain_model})


def compare(stage: Stage, name: str, got: Answers, wanted: Answers, leads: Sequence[Sequence[float]]) -> None:
    """Rows must be equal up to where the oracle is in doubt; an oracle's row may end early, at an end token."""
    same = excused = 0
    for mine, theirs, lead in zip(got, wanted, leads, strict=True):
        at = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
        same += at is None and len(mine) >= len(theirs) > 0
        excused += at is not None and lead[at] < NOISE
    detail = f"{same} of {len(wanted)} rows equal, {excused} differ where the best two are within {NOISE:g}"
    stage.found.check(f"greedy tokens, {name}", same + excused == len(wanted) and excused <= len(wanted) // 8, detail)


def _check_bits(stage: Stage) -> None:
    """Two engines, one after the other, on the same job; half the rows are drawn at random."""
    prompts = make_prompts(2000, small=stage.small) * (1 if stage.small else 4)
    params = [
        SamplingParams(
            temperature=0.7 * (i % 2), seed=i, max_tokens=4 if stage.small else 32, ignore_eos=True, logprobs=2
        )
        for i in range(len(prompts))
    ]
    for dtype in ("float32", "bfloat16"):
        runs = [
            [o.outputs for o in LLM("demo", dtype=dtype, device=str(stage.device), chunk=128).generate(prompts, params)]
            for _ in range(2)
        ]
        same = sum(a == b and len(a) == 1 for a, b in zip(*runs, strict=True))
        detail = f"{same} of {len(prompts)} rows: tokens and log-probabilities of both runs"
        stage.found.check(f"two runs equal to the bit, {dtype}", same == len(prompts), detail)


def _check_top_1(stage: Stage) -> None:
    """The best token behind the oracle's own, at every position of its answers."""
    directory = resolve_model("demo")
    lines = TASKS.read_text(encoding="utf-8").splitlines()[: 2 if stage.small else 100]
    prompts = Tokenizer.load(directory).encode_chat([Chat(json.loads(line)["messages"]) for line in lines])
    oracle, grown, best = PlainModel(directory), [], []
    for prompt in stage.each("prompts of the demo model", prompts, 5.0):
        answer, _ = oracle.greedy(prompt, 4 if stage.small else 8)
        grown += [[*prompt, *answer[:i]] for i in range(len(answer))]
        best += answer
    llm = LLM("demo", dtype="bfloat16", device=str(stage.device))
    outputs = llm.generate(grown, SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True))
    equal = sum(tokens_of(o) == (wanted,) for o, wanted in zip(outputs, best, strict=True))
    share = equal / max(len(best), 1)
    detail = f"{equal} of {len(best)} positions, {share:.2%}, asked {TOP_1:.1%}"
    stage.found.check("best token in bfloat16, the demo model against float32", bool(best) and share >= TOP_1, detail)
