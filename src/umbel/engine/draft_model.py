"""A small model proposes tokens: it has read what the samples have, in KV memory of its own, and decodes ahead of them
(speculative decoding, arXiv 2211.17192).

All samples that ask are computed in one step for each token that is proposed. Beginnings that prompts share are
computed once; what came true stays computed, and the rest is written over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from umbel.config import EngineConfig
from umbel.engine.build import Model, build_runner, build_store
from umbel.engine.draft_text import DraftText
from umbel.errors import UsageError
from umbel.ir.columns import runs
from umbel.ir.step import Sampling, Step
from umbel.plan.passes.speculate import NOT_BACK
from umbel.runner.base import Runner, run_step
from umbel.spec.base import MOST, Drafts, DrawRule, Ints, Setting, TokenIds
from umbel.spec.shared_pages import SharedPages
from umbel.text.tokenizer import Tokenizer

KV_TOKENS = 1 << 16  # tokens whose KV the draft model has room for
CHUNK = 2048  # tokens that a step computes of samples that it has not read yet, at most


class DraftModel:
    """A loaded draft model with KV memory. Raises UsageError where it does not belong to the model that it is for."""

    def __init__(self, setting: Setting):
        if not setting.argument or setting.config is None:
            raise UsageError("speculate='model': say which, as in speculate='model:PATH' (--speculate model:PATH)")
        self.model = Model(_config_of(setting.config, setting.argument))
        _check_fits(self.model, setting)
        size = self.model.config.page_size
        self.n_pages = -(-KV_TOKENS // size)
        store = build_store(self.model, self.n_pages, size)
        self.kv_bytes = store.n_bytes
        self.runner: Runner = build_runner(self.model, store)


class ModelDrafter:
    """Proposes the tokens that samples would draw from the draft model, by the noise of their own draws: at most MOST,
    each of which takes a step of that model. A sample for which its KV memory has no room is proposed nothing."""

    def __init__(self, setting: Setting):
        if setting.argument not in setting.kept:
            setting.kept[setting.argument] = DraftModel(setting)
        draft = cast(DraftModel, setting.kept[setting.argument])
        self._runner, self._width = draft.runner, setting.width or draft.model.spec.vocab_size
        self._pages = SharedPages(draft.n_pages, draft.model.config.page_size)
        self._texts: dict[int, DraftText] = {}  # by rank, those that were asked for last at the end
        self.computed_tokens = 0

    def start(self, rank: int, row: int, group: int, prompt: TokenIds) -> None:
        """A sample without tokens."""
        self._texts[rank] = DraftText.of(prompt, self._pages.keys(prompt))

    def draw_as(self, rank: int, rule: DrawRule) -> None:
        """Tokens of the sample are drawn so."""
        self._texts[rank].rule = rule

    def extend(self, ranks: Ints, tokens: TokenIds, begin: Ints) -> None:
        """Samples have further tokens."""
        for rank, first, last in zip(ranks.tolist(), begin[:-1].tolist(), begin[1:].tolist(), strict=True):
            self._texts[rank].extend(tokens[first:last])

    def propose(self, ranks: Ints, most: Ints) -> Drafts:
        """What the draft model says next, a step for each place."""
        texts, most = [], np.minimum(most, MOST)
        for rank in ranks.tolist():
            texts.append(self._texts.pop(rank))
            self._texts[rank] = texts[-1]
            texts[-1].rewind()
        found = [[] if token is None else [token] for token in self._read(texts)]
        for place in range(1, int(most.max(initial=1))):
            going = [i for i, drafts in enumerate(found) if len(drafts) == place < most[i] and drafts[-1] < self._width]
            for i in going:
                texts[i].propose(found[i][-1])
            for i, token in zip(going, self._read([texts[i] for i in going]), strict=True):
                found[i] += [] if token is None else [token]
        return Drafts.of([drafts[:-1] if drafts and drafts[-1] >= self._width else drafts for drafts in found])

    def end(self, rank: int, *, done: bool) -> None:
        """The sample is gone."""
        self._pages.give(self._texts.pop(rank).pages)

    def _read(self, texts: Sequence[DraftText]) -> list[int | None]:
        """Compute what texts lack, in as many steps as that takes; gives the most likely token behind each (None:
        there is no room for it)."""
        drawn: dict[int, int] = {}
        waiting = list(range(len(texts)))
        while waiting:
            budget, counts = CHUNK, dict[int, int]()
            for i in waiting:
                if budget and (count := self._make_room(texts[i], budget, texts)):
                    counts[i] = count
                    budget -= count
            if not counts:
                break
            drawn |= zip(counts, self._compute([texts[i] for i in counts], list(counts.values())), strict=True)
            waiting = [i for i in waiting if texts[i].lacking and (i in counts or budget == 0)]
        return [drawn.get(i) if text.lacking == 0 else None for i, text in enumerate(texts)]

    def _make_room(self, text: DraftText, budget: int, asked: Sequence[DraftText]) -> int:
        """Pages for the next tokens of a text, at most `budget`; returns for how many there are. Texts that were not
        asked for of late give theirs up."""
        pages, size = self._pages, self._pages.size
        if not text.pages:
            text.pages = pages.find(text.keys[: (text.size - 1) // size])
            text.held = len(text.pages) * size
        count = min(text.lacking, budget)
        missing = max(-(-(text.held + count) // size) - len(text.pages), 0)
        taken = pages.take(missing)
        for other in self._texts.values() if taken is None else ():
            if taken is None and other.pages and all(other is not one for one in asked):
                _give_up(pages, other)
                taken = pages.take(missing)
        if taken is None:
            _give_up(pages, text)
            return 0
        text.pages += taken
        for place in range(text.held // size, min((text.held + count) // size, len(text.keys))):
            pages.name(text.pages[place], text.keys[place])
        return count

    def _compute(self, texts: Sequence[DraftText], counts: Sequence[int]) -> list[int]:
        """One step that feeds so many further tokens of each text; the most likely token behind the last of each."""
        size, more = self._pages.size, np.array(counts, np.int64)
        held = np.array([text.held for text in texts], np.int64)
        pages = [text.pages[: -(-(text.held + count) // size)] for text, count in zip(texts, counts, strict=True)]
        row_end, page_end = np.cumsum(more), np.cumsum([len(of) for of in pages])
        none, rules = np.zeros(len(texts), np.int64), [text.rule for text in texts]
        parts = [text.tokens[text.held : text.held + count] for text, count in zip(texts, counts, strict=True)]
        step = Step(
            tokens=np.concatenate(parts).astype(np.int64),
            positions=runs(held, more),
            fresh=np.ones(int(row_end[-1]), bool),
            parent=none - 1,
            start=none,
            end=held + more,
            row_begin=row_end - more,
            row_end=row_end,
            below_end=row_end,
            pages=np.array([page for of in pages for page in of], np.int64),
            page_begin=np.append(0, page_end[:-1]),
            page_size=size,
            sampling=_sampling(rules, row_end - 1, held + more),
        )
        for text, count in zip(texts, counts, strict=True):
            text.held += count
        self.computed_tokens += int(row_end[-1])
        return run_step(self._runner, step).token_ids.tolist()


def _sampling(rules: Sequence[DrawRule], at: Ints, positions: Ints) -> Sampling:
    """A draw by each rule, from these rows of a step, of the tokens at these positions."""
    return Sampling(
        at=at,
        temperature=np.array([rule.temperature for rule in rules]),
        top_k=np.array([rule.top_k for rule in rules], np.int64),
        top_p=np.array([rule.top_p for rule in rules]),
        min_p=np.array([rule.min_p for rule in rules]),
        streams=np.array([rule.stream for rule in rules], np.int64),
        keys=np.zeros_like(at),
        samples=np.array([rule.sample for rule in rules], np.int64),
        positions=positions,
        logprobs=np.full_like(at, -1),
    )


def _give_up(pages: SharedPages, text: DraftText) -> None:
    """A text has no KV any more."""
    pages.give(text.pages)
    text.pages, text.held = [], 0


def _config_of(config: EngineConfig, path: str) -> EngineConfig:
    """The settings of the draft model: those of the engine as far as they are about the machine."""
    return EngineConfig(
        path,
        dtype=config.dtype,
        device=config.device,
        threads=config.threads,
        page_size=config.page_size,
        seed=config.seed,
        load_format=config.load_format,
    )


def _check_fits(draft: Model, setting: Setting) -> None:
    """Raise UsageError for a draft model whose context is shorter, or whose tokens are others."""
    spec, named = draft.spec, f"speculate='model:{setting.argument}'"
    if spec.recurrences:
        raise UsageError(f"{named}: of the draft model, {NOT_BACK}: give one with attention in all layers")
    if spec.max_positions < setting.context:
        raise UsageError(
            f"{named}: the draft model's context is {spec.max_positions:,} tokens, and the model's "
            f"{setting.context:,}: give one whose context is as long"
        )
    tokenizer = cast("Tokenizer | None", setting.tokenizer)
    if tokenizer is None or draft.tokenizer is None:
        if setting.width not in (None, spec.vocab_size):
            raise UsageError(
                f"{named}: the draft model has {spec.vocab_size:,} tokens, and the model {setting.width:,}"
            )
    elif why := _difference(tokenizer, draft.tokenizer):
        raise UsageError(f"{named}: the draft model has another tokenizer: {why}; give one with the same")


def _difference(one: Tokenizer, other: Tokenizer) -> str:
    """How two tokenizers differ: in their ids or in their special tokens; '' where they do not."""
    ids, others = (t.backend.get_vocab(with_added_tokens=True) for t in (one, other))
    if ids != others:
        token = min(token for token in ids.keys() | others.keys() if ids.get(token) != others.get(token))
        return f"{token!r} is token {others.get(token)} in it, and {ids.get(token)} in the model"
    for name in sorted(one.special_tokens.keys() | other.special_tokens.keys()):
        if (here := one.special_tokens.get(name)) != (there := other.special_tokens.get(name)):
            return f"{name} is {there!r} in it, and {here!r} in the model"
    return ""
