"""The model `umbel` of lm-evaluation-harness 0.4.13: all of its requests, with what they share computed once.

Questions of a task begin alike (the examples before them), and the choices of a question are branches over one context.
Texts are split, cut and put together as its model `hf` does, so that scores are equal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from umbel.api import LLM
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams

LOG = logging.getLogger(__name__)
Scored = tuple[float, bool]
BATCH_SIZES = ("batch_size", "max_batch_size")
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "repetition_penalty")
"""What `gen_kwargs` may ask for beside `do_sample`, `until` and the number of tokens."""


@register_model("umbel")
class UmbelLM(TemplateLM):
    """`pretrained` names the model; `max_length`, `max_gen_toks`, `add_bos_token`, `prefix_token_id` and
    `chat_template_args` are those of `hf`; all others are options of `umbel.LLM`. Batch sizes are accepted and mean
    nothing: the plan decides."""

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        chat_template_args: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        super().__init__()
        for name in BATCH_SIZES:
            options.pop(name, None)
        # The harness asks for cuda:0 by itself; `hf`, too, takes a processor where there is none.
        on_gpu = device is not None and torch.cuda.is_available()
        self.llm = LLM(pretrained, device=device if on_gpu or device == "cpu" else "auto", **options)
        if self.llm.tokenizer is None:
            raise UsageError(f"pretrained={pretrained!r}: has no tokenizer, which lm-evaluation-harness needs")
        self.name, self.words = pretrained, self.llm.get_tokenizer()
        context = self.llm.engine.model.spec.max_positions
        if max_length is not None and not 1 < max_length < context:
            raise UsageError(f"max_length={max_length}: contexts of this model have 2 to {context - 1:,} tokens")
        # One token fewer than `hf` takes: it scores one behind the last position, which no row of ours has.
        self.max_length = max_length or context - 1
        self.max_gen_toks, self.add_bos_token = max_gen_toks, add_bos_token
        self._prefix, self._template_args = prefix_token_id, dict(chat_template_args or {})

    @property
    def eot_token_id(self) -> int | None:
        """The token that ends a text."""
        return self.words.eos_token_id

    @property
    def prefix_token_id(self) -> int | None:
        """What stands before a text that has no context."""
        first = self.words.bos_token_id if self._prefix is None else self._prefix
        return self.eot_token_id if first is None else first

    @property
    def tokenizer_name(self) -> str:
        """What names the tokenizer in caches of requests."""
        return self.name.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The text of the model's chat template, where one is asked for; by name there is only its own."""
        if isinstance(chat_template, str):
            raise UsageError(f"apply_chat_template={chat_template!r}: only the model's own template is applied")
        return self.llm.tokenizer.template_text if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt of a conversation."""
        found = self.words.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **self._template_args,
        )
        return str(found)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text, with the special tokens that its beginning has not got yet."""
        if add_special_tokens is None:
            prefix = None if self.prefix_token_id is None else self.words.decode([self.prefix_token_id])
            begun = prefix is not None and has_bos_prefix(string, prefix)
            add_special_tokens = False if begun else self.add_bos_token
        return self.words.encode(string, add_special_tokens=add_special_tokens is not False)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, in windows of the context's length that do not overlap in what they
        score."""
        windows = [self._windows(request.args[0]) for request in requests]
        scores = iter(self._score([pair for each in windows for pair in each], disable_tqdm))
        found = [sum(next(scores)[0] for _ in each) for each in windows]
        for request, total in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answer to each prompt, up to the first of its stop texts."""
        asked = [self._generation(*request.args) for request in requests]
        prompts, params = [ids for ids, _, _ in asked], [each for _, each, _ in asked]
        outputs = self.llm.generate(prompts, params, use_tqdm=not disable_tqdm, on_error="raise")
        found = []
        for request, output, (_, _, stops) in zip(requests, outputs, asked, strict=True):
            text = self.words.decode(output.outputs[0].token_ids, skip_special_tokens=True)
            found.append(postprocess_generated_text(text, stops, None))
            self.cache_hook.add_partial("generate_until", request.args, found[-1])
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[Scored]:
        """For each context and continuation the log-likelihood of the latter, and whether it is the greedy answer."""
        found = self._score([(context, tokens) for _, context, tokens in requests], disable_tqdm)
        for (text, _, _), answer in zip(requests, found, strict=True):
            if text is not None:
                self.cache_hook.add_partial("loglikelihood", text, answer)
        return found

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]], disable_tqdm: bool) -> list[Scored]:
        """Scores of continuations; contexts that are too long lose their beginning, as in `hf`."""
        rows = [(context + tokens)[-self.max_length - 1 :] for context, tokens in pairs]
        whole = [len(context) + len(tokens) for context, tokens in pairs]
        if cut := sum(len(row) < length for row, length in zip(rows, whole, strict=True)):
            LOG.warning("%d of %d contexts are longer than %d tokens: cut on the left", cut, len(rows), self.max_length)
        params: dict[int, SamplingParams] = {}
        starts = [len(row) - len(tokens) for row, (_, tokens) in zip(rows, pairs, strict=True)]
        for start in starts:
            params.setdefault(
                start,
                SamplingParams(temperature=0.0, max_tokens=0, prompt_logprobs=1, logprob_start_len=start),
            )
        wanted = [params[start] for start in starts]
        outputs = self.llm.generate(rows, wanted, use_tqdm=not disable_tqdm, on_error="raise")
        return [
            _sum_up(row[start:], output.prompt_logprobs[start:])
            for row, start, output in zip(rows, starts, outputs, strict=True)
        ]

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """The windows of a text, each with what it scores."""
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [make_disjoint_window(window) for window in windows]

    def _generation(self, context: str, gen_kwargs: Mapping[str, Any]) -> tuple[list[int], SamplingParams, list[str]]:
        """The prompt, the parameters and the stop texts of one request."""
        asked = dict(normalize_gen_kwargs(dict(gen_kwargs), self.max_gen_toks))
        end = None if self.eot_token_id is None else self.words.decode([self.eot_token_id])
        stops = handle_stop_sequences(asked.pop("until", None), end)
        most, samples = asked.pop("max_gen_toks"), asked.pop("do_sample", False)
        if unknown := sorted(asked.keys() - set(SAMPLING)):
            raise UsageError(f"gen_kwargs {', '.join(unknown)}: known are {', '.join(SAMPLING)}, do_sample and until")
        room = self.max_length - most
        if room < 1:
            raise UsageError(f"max_gen_toks={most}: leaves no prompt in a context of {self.max_length:,} tokens")
        chosen = asked if samples else {"temperature": 0.0, **_without_draws(asked)}
        return self.tok_encode(context)[-room:], SamplingParams(max_tokens=most, stop=stops, **chosen), stops


def _without_draws(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What counts of some parameters where nothing is drawn."""
    return {name: asked[name] for name in ("repetition_penalty",) if name in asked}


def _sum_up(tokens: Iterable[int], entries: Iterable[Any]) -> Scored:
    """The log-likelihood of tokens, and whether each of them is the most likely one, from what stands at their
    places."""
    found = [entry[token] for token, entry in zip(tokens, entries, strict=True)]
    return sum(each.logprob for each in found), all(each.rank == 1 for each in found)
