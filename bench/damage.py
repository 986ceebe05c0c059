"""What lossy techniques do to a model: bytes, drift of its distributions, where greedy answers part, right answers.

python bench/damage.py [--model demo] [--dtype float32] [--prompts FILE.jsonl [--labels FILE.jsonl]] (prints Markdown)

Prompts are lines of `umbel run` with `messages` or `prompt`; labels are lines as in examples/labels.jsonl.
Distributions are those of every token of a prompt and of the exact model's greedy answer, given what stands before it,
over the whole vocabulary. Tasks and held-out prompts of the demo model, by task: bench/lossy_damage.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path

import torch
from torch import Tensor

from umbel import LLM, SamplingParams
from umbel.cost.machine import this_machine
from umbel.cost.quantised import price_of

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from score import is_right, read

EXAMPLES = Path(__file__).parents[1] / "examples"
TECHNIQUES = ("linear=int8", "linear=int4", "linear=int4-head8", "kv_cache_dtype=int8", "kv_cache_dtype=fp8")


@dataclass
class Drift:
    """Differences between two models, position by position."""

    same_top: list[Tensor] = field(default_factory=list)
    kl: list[Tensor] = field(default_factory=list)
    moved: list[Tensor] = field(default_factory=list)

    def add(self, exact: Tensor, lossy: Tensor, ids: list[int]) -> None:
        """Logits of the positions of `ids` (`[n, vocab]`), each of what comes after it."""
        p, q = (logits.double().log_softmax(-1) for logits in (exact, lossy))
        self.same_top.append(p.argmax(-1) == q.argmax(-1))
        self.kl.append((p.exp() * (p - q)).sum(-1))
        following = torch.tensor(ids[1:]).unsqueeze(1)
        self.moved.append((p[:-1].gather(1, following) - q[:-1].gather(1, following)).abs().flatten())

    def columns(self) -> list[str]:
        """Top-1 agreement, KL on average and at most, and how far the log-probability of what follows moves."""
        same, kl, moved = torch.cat(self.same_top), torch.cat(self.kl), torch.cat(self.moved)
        figures = [f"{same.double().mean():.2%}", f"{kl.mean():.5f}", f"{kl.max():.3f}"]
        return [*figures, f"{moved.mean():.4f}", f"{moved.max():.2f}"]


class Watched:
    """A model whose logits are kept as it makes them."""

    def __init__(self, model: str, dtype: str, **options: str):
        self.llm = LLM(model, dtype=dtype, allow_lossy=bool(options), device="cpu", **options)
        self._kept: list[Tensor] = []
        decoder = self.llm.engine.model.decoder
        make = decoder.logits

        def keep(hidden: Tensor, out: Tensor | None = None) -> Tensor:
            logits = make(hidden, out)
            self._kept.append(logits.clone())
            return logits

        decoder.logits = keep  # type: ignore[method-assign]

    def answers(self, prompts: list[dict], most: int) -> list[tuple[list[int], str]]:
        """Greedy tokens and text for each prompt."""
        self._kept.clear()
        outputs = self.llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=most))
        self._kept.clear()
        return [(list(output.outputs[0].token_ids), output.outputs[0].text) for output in outputs]

    def prompt_ids(self, prompts: list[dict]) -> list[list[int]]:
        """The tokens of each prompt."""
        outputs = self.llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=1))
        self._kept.clear()
        return [list(output.prompt_token_ids) for output in outputs]

    def logits(self, ids: list[int]) -> Tensor:
        """Logits after each token: `[len(ids), vocab]`. The last ones are made first, as they are sampled from."""
        self._kept.clear()
        self.llm.generate([ids], SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0))
        last, *others = self._kept
        found = torch.cat([*others, last])
        if len(found) != len(ids):
            raise RuntimeError(f"{len(found)} logits for {len(ids)} tokens: raise the step size")
        return found

    def n_bytes(self) -> tuple[int, int]:
        """Bytes of the weights as they are kept, and of the keys and values of a token."""
        model = self.llm.engine.model
        decoder = model.decoder
        kept = {t.data_ptr(): t.nbytes for t in tensors((decoder.layers, decoder.embedding, decoder.head))}
        return sum(kept.values()), price_of(model.spec, model.config, this_machine()).shape.kv_bytes


def tensors(of: object) -> Iterator[Tensor]:
    """All tensors in a record or a tuple, and in what these hold."""
    if isinstance(of, Tensor):
        yield of
    elif isinstance(of, tuple):
        for each in of:
            yield from tensors(each)
    elif is_dataclass(of):
        yield from tensors(tuple(getattr(of, f.name) for f in fields(of)))


def parted(exact: list[int], lossy: list[int]) -> int | None:
    """The first place at which two answers differ, None where they do not."""
    if exact == lossy:
        return None
    return next((i for i, (a, b) in enumerate(zip(exact, lossy, strict=False)) if a != b), min(len(exact), len(lossy)))


def right(prompts: list[dict], answers: list[tuple[list[int], str]], labels: dict[str, dict]) -> str:
    """The share of labelled rows that are answered rightly."""
    pairs = [
        (a, labels[p["custom_id"]]) for p, (_, a) in zip(prompts, answers, strict=True) if p.get("custom_id") in labels
    ]
    good = sum(is_right({"text": text}, label) for text, label in pairs)
    return f"{good} of {len(pairs)}" if pairs else "–"


def main() -> None:
    """One line per technique."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="float32", help="of everything else")
    parser.add_argument("--prompts", type=Path, default=EXAMPLES / "tasks.jsonl")
    parser.add_argument("--labels", type=Path, default=EXAMPLES / "labels.jsonl")
    parser.add_argument("--drift", type=int, default=60, help="prompts whose distributions are compared")
    parser.add_argument("--most", type=int, default=48, help="tokens of an answer")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("techniques", nargs="*", default=TECHNIQUES, help="option=value of LLM, joined by +")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    rows = read(given.prompts)
    prompts = [{"messages": row["messages"]} if "messages" in row else row["prompt"] for row in rows]
    labels = {label["custom_id"]: label for label in read(given.labels)} if given.labels.exists() else {}
    exact = Watched(given.model, given.dtype)
    answers = exact.answers(prompts, given.most)
    texts = [a + b for a, (b, _) in zip(exact.prompt_ids(prompts[: given.drift]), answers, strict=False)]
    titles = ["technique", "MB of weights", "KV bytes a token", "top-1 the same", "KL, mean", "KL, most"]
    titles += ["log-probability moved, mean", "most", "answers that part", "at token (median)", "right"]
    print("| " + " | ".join(titles) + " |\n|---" + "|---:" * (len(titles) - 1) + "|")
    dashes = ["–"] * 7
    weights, kv = exact.n_bytes()
    print_row(["exact", f"{weights / 1e6:.1f}", f"{kv:,}", *dashes, right(rows, answers, labels)])
    for technique in given.techniques:
        lossy = Watched(given.model, given.dtype, **dict(option.split("=") for option in technique.split("+")))
        drift, theirs = Drift(), lossy.answers(prompts, given.most)
        for ids in texts:
            drift.add(exact.logits(ids), lossy.logits(ids), ids)
        places = [parted(a, b) for (a, _), (b, _) in zip(answers, theirs, strict=True)]
        apart = sorted(place for place in places if place is not None)
        at = str(apart[len(apart) // 2]) if apart else "–"
        weights, kv = lossy.n_bytes()
        name = technique.replace("kv_cache_dtype", "kv").replace("=", " ")
        columns = [name, f"{weights / 1e6:.1f}", f"{kv:,}", *drift.columns()]
        print_row([*columns, f"{len(apart)} of {len(places)}", at, right(rows, theirs, labels)])


def print_row(columns: list[str]) -> None:
    """A line of the table."""
    print("| " + " | ".join(columns) + " |", flush=True)


if __name__ == "__main__":
    main()
