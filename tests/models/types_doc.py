"""Writes docs/model_types.md, what becomes of each type of models: `python -m tests.models.types_doc`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers

from umbel.models.architectures import FAMILIES
from umbel.models.hosted.fate import Fate, fate_of, model_types

DOC = Path(__file__).parents[2] / "docs" / "model_types.md"
FIGURES = Path(__file__).with_name("type_figures.json")
"""By type, what `python -m tools.zoo --keep` found of it."""
ROUNDING = Path(__file__).with_name("rounding_figures.json")
"""By type, what `python -m tools.rounding --keep` found of it."""
HEAD = """# Model types

What becomes of each `model_type` with a causal decoder in transformers {version}. *Native*: our own layers compute it;
every one of them is compared with transformers by `tests/models/test_zoo.py`, `tests/oracle/test_mixtures.py` and,
over longer answers, `python -m tools.zoo` (the last columns). *Through transformers*: its module computes the layers
with our attention, KV and products ([how](transformers.md)). *Refused*: an error says why before anything is loaded.
Every key of a native model's config.json is obeyed, named or refused ([which](model_keys.md)); a column has those of
the type's own that are refused in values that say something. `--model-impl transformers` may run what a native type
refuses.

Rotary positions may be plain, partial, interleaved, `linear`, `llama3`, `yarn`, `longrope` or `dynamic`, and differ
between layers. Where the last two would make keys depend on how long a row becomes, the context ends, and a note says
so: 4,096 tokens for Phi-3 with 128k, of which vLLM uses other frequencies throughout.

{counts}

*Answers*: of 100 prompts that end around borders of pages and windows, how many get transformers' own 256 greedy
tokens in float32, and how many get the same ones again with beginnings shared, in chunks of 48 tokens and from a tight
pool. *Logits*: the largest difference over these prompts and answers. *bfloat16*: of the positions whose best token is
beyond doubt (transformers' own logits move by less in bfloat16 than the best one leads), those where it is ours. Below
99.5 % of them, the share is followed by that of transformers' own other attention (`sdpa` instead of `eager`, which
differs in the order of its sums, and which `gpt_oss` lacks) and ours again, both over other and more positions (`python
-m tools.rounding`): the choice of experts changes with the last bit, in whichever way it is computed. Models are tiny,
random and made by transformers' classes; the processor had products in bfloat16, that of the second comparison none.
Where two experts' scores are closer than sums in float32 are exact, either may be chosen. That is so at one position of
`granitemoeshared` (1e-7 apart), and may be why one answer of `ernie4_5_moe` goes its own way: scores before it are 4e-7
apart.

| type | way | class, or why not | refused | answers | logits | bfloat16 |
| --- | --- | --- | --- | --- | --- | --- |
"""
TAIL = """
Made by `python -m tests.models.types_doc`; a test compares it with the code.
"""
WAYS = {"native": "native", "transformers": "through transformers", "refused": "refused"}


def document() -> str:
    """The whole page."""
    fates = {kind: fate_of(kind) for kind in model_types()}
    count = {way: sum(fate.way == way for fate in fates.values()) for way in WAYS}
    counts = ", ".join(f"{count[way]} {words}" for way, words in WAYS.items())
    figures = json.loads(FIGURES.read_text())
    for kind, rounded in json.loads(ROUNDING.read_text()).items():
        figures[kind]["rounded"] = rounded
    rows = (_row(kind, fate, figures) for kind, fate in sorted(fates.items(), key=_by_way))
    return HEAD.format(version=transformers.__version__, counts=f"{len(fates)} types: {counts}.") + "".join(rows) + TAIL


def _by_way(item: tuple[str, Fate]) -> tuple[int, str]:
    return list(WAYS).index(item[1].way), item[0]


def _row(kind: str, fate: Fate, figures: dict[str, Any]) -> str:
    refused, found = "", " | | "
    what = fate.reason
    if fate.way == "native":
        family = FAMILIES[kind]
        what, refused = f"`{family.architecture}`", ", ".join(f"`{key}`" for key in sorted(family.refused))
        found = _found(figures.get(kind))
    elif fate.way == "transformers":
        what = f"`{what}`"
    return f"| `{kind}` | {WAYS[fate.way]} | {what} | {refused} | {found} |\n"


def _found(one: dict[str, Any] | None) -> str:
    if one is None:
        return " | | "
    answers = f"{one['same']}, {one['same_in_tight_pool']}"
    if one["excused"] or one["different"]:
        answers += f" ({one['excused']} part at a tie of tokens, {one['different']} elsewhere)"
    narrow = f"{one['clear_and_equal']:,} of {one['clear']:,}"
    if one["clear_and_equal"] < 0.995 * one["clear"] and "rounded" in one:
        narrow += f" ({_rounded(**one['rounded'])})"
    return f"{answers} | {one['logits']:.1e} | {narrow}"


def _rounded(*, clear: int, ours: int, sdpa: int, **_: int) -> str:
    return f"theirs {100 * sdpa / clear:.1f} %, ours {100 * ours / clear:.1f} %"


if __name__ == "__main__":
    DOC.write_text(document(), encoding="utf-8")
