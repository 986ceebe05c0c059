"""A model that answers tasks: greedy tokens, their log-probabilities, seconds, and the bytes that it keeps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.nn import Module

from umbel.api import LLM
from umbel.cost.machine import machine_name
from umbel.cost.passed import spared_flops
from umbel.cost.quantised import price_of
from umbel.cost.roofline import Load, Price
from umbel.engine.document_prompts import encode_alone
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.report import Stats
from umbel.lab.tasks import LabTask
from umbel.plan.walk.passing import passed_layers
from umbel.text.documents import TextParts, encode_parts

LIKELY = 20  # tokens beside the chosen one whose log-probabilities are asked for


@dataclass(frozen=True, slots=True)
class LabAnswer:
    """One answer: its tokens, for each place the log-probabilities of likely tokens (the chosen one among them), its
    text, and the tokens of its prompt."""

    ids: Sequence[int]
    logprobs: Sequence[Mapping[int, float]]
    text: str
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers of a task's rows, and the seconds of the fastest of several rounds over all of them."""

    answers: Sequence[LabAnswer]
    seconds: float


class AnsweringModel:
    """A loaded model. Raises UsageError for what cannot be, ModelError."""

    def __init__(self, model: str, **options: Any):
        self.llm = LLM(model, **options)

    @property
    def machine(self) -> str:
        """The name of the machine that it runs on."""
        return machine_name(self.llm.engine.machine)

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return self.llm.engine.model.config.dtype

    @property
    def price(self) -> Price:
        """The price of its steps, by its shape alone."""
        model = self.llm.engine.model
        return price_of(model.spec, model.config, self.llm.engine.machine)

    def count(self, text: str) -> int:
        """Tokens of a text. Raises UsageError where the model has no tokenizer."""
        tokenizer = self.llm.engine.model.tokenizer
        if tokenizer is None:
            raise UsageError("umbel lab asks in words: the model has no tokenizer")
        return len(tokenizer.encode([text])[0])

    def answer(self, task: LabTask, rounds: int) -> Answered:
        """Answer the rows of a task, so often."""
        params = [SamplingParams(temperature=0.0, max_tokens=most, logprobs=LIKELY) for most in task.most]
        seconds, outputs = float("inf"), []
        prompts = with_documents(self.llm, task) if self.llm.intake.reuses and task.documents else list(task.prompts)
        for _ in range(rounds):
            began = time.perf_counter()
            outputs = self.llm.generate(prompts, params, use_tqdm=False, on_error="raise")
            seconds = min(seconds, time.perf_counter() - began)
        return Answered([_answer(output) for output in outputs], seconds)

    def stats(self) -> Stats:
        """Totals of everything that it answered."""
        return self.llm.stats()

    def flops_share(self) -> float:
        """The FLOPs of everything that it answered as a share of those that reading all keys would take."""
        stats = self.stats()
        drawn = stats.output_tokens
        tokens = stats.computed_prompt_tokens + stats.recomputed_tokens + drawn
        if stats.layers_whole:
            return self._layers_share(tokens, drawn, stats.layers_whole - stats.layers_passed)
        if not stats.keys_whole:
            return tokens / (tokens + stats.left_out_tokens)
        read, whole = (
            float(self.price.flops(Load.one(tokens, drawn, keys, 0))[0]) for keys in (stats.keys_read, stats.keys_whole)
        )
        return read / whole

    def _layers_share(self, tokens: int, drawn: int, skipped: int) -> float:
        """The FLOPs of products where tokens skip so many layers, as a share of those in all layers."""
        model, whole = self.llm.engine.model, float(self.price.flops(Load.one(tokens, drawn, 0, 0))[0])
        price = passed_layers(model.config.technique)
        spared = 0.0 if price is None else spared_flops(model.spec, price, skipped, tokens - drawn)
        return 1.0 - spared / whole

    @property
    def kv_bytes(self) -> int:
        """Bytes of the keys and values of a token."""
        return self.price.shape.kv_bytes

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights as they are kept."""
        decoder = self.llm.engine.model.decoder
        return sum(
            {t.data_ptr(): t.nbytes for t in tensors((decoder.layers, decoder.embedding, decoder.head))}.values()
        )

    def close(self) -> None:
        """Give its memory back."""
        self.llm.close()


def with_documents(llm: LLM, task: LabTask) -> list[dict[str, Any]]:
    """The chats of a task as token ids with their documents, for an engine that computes these apart."""
    tokenizer, parts = llm.intake.tokenizer, []
    rendered = llm.intake.render(task.prompts)
    for row, (prompt, spans) in enumerate(zip(task.prompts, task.documents, strict=True)):
        text = str(rendered[row])
        at = text.index(prompt["messages"][-1]["content"])
        parts.append(TextParts(text, [(at + first, at + end) for first, end in spans]))
    found = encode_parts(tokenizer.encode_rendered, encode_alone(tokenizer), parts)
    return [{"prompt_token_ids": one.ids, "documents": [*map(list, one.documents)]} for one in found]


def _answer(output: Any) -> LabAnswer:
    first = output.outputs[0]
    likely = [{token: one[token].logprob for token in one} for one in first.logprobs or ()]
    return LabAnswer(tuple(first.token_ids), likely, first.text, len(output.prompt_token_ids))


def tensors(of: object) -> Iterator[Tensor]:
    """All tensors in a record or a tuple, and in what these hold."""
    if isinstance(of, Tensor):
        yield of
    elif isinstance(of, Module):  # of transformers
        yield from of.parameters()
    elif isinstance(of, tuple):
        for each in of:
            yield from tensors(each)
    elif is_dataclass(of):
        yield from tensors(tuple(getattr(of, f.name) for f in fields(of)))
