"""How texts are cut before byte-level BPE merges them, by the names that GGUF files have for it (`tokenizer.ggml.pre`).

A file says the name alone; the expressions are those of the tokenizer.json files that the names stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
LLAMA3 = rf"{ENDINGS}|{WORD}|\p{{N}}{{1,3}}|{TAIL}"
QWEN2 = rf"{ENDINGS}|{WORD}|\p{{N}}|{TAIL}"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"{CASED[0]}|{CASED[1]}|\p{{N}}|{SLASHED}"
GPT4O = rf"{CASED[0]}{ENDINGS}?|{CASED[1]}{ENDINGS}?|\p{{N}}{{1,3}}|{SLASHED}"


@dataclass(frozen=True, slots=True)
class Split:
    """One way: parts are what matches `pattern`, or ("") what GPT-2 made of a text, behind single digits if `digits`.

    `nfc`: texts are normalised (Unicode NFC) first. `whole`: a part that is a token is one, whatever the merges say.
    `bos`: texts begin with the token that begins texts, where a file does not say.
    """

    pattern: str = ""
    digits: bool = False
    nfc: bool = False
    whole: bool = False
    bos: bool = False

    def pre_tokenizer(self) -> dict[str, Any]:
        """The pre-tokenizer, as tokenizer.json has it."""
        by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": not self.pattern}
        first = {"type": "Split", "pattern": {"Regex": self.pattern}, "behavior": "Isolated", "invert": False}
        before = [first] if self.pattern else [{"type": "Digits", "individual_digits": True}] if self.digits else []
        return {"type": "Sequence", "pretokenizers": [*before, by_bytes]}


SPLITS: Mapping[str, Split] = MappingProxyType({
    **dict.fromkeys(("gpt-2",), Split()),
    **dict.fromkeys(("olmo",), Split(nfc=True)),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"), Split(LLAMA3, whole=True, bos=True)),
    **dict.fromkeys(("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), Split(LLAMA3)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), Split(QWEN2, nfc=True)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r"), Split(digits=True)),
    **dict.fromkeys(("tekken",), Split(TEKKEN, whole=True, bos=True)),
    **dict.fromkeys(("gpt-4o", "llama4"), Split(GPT4O)),
})  # fmt: skip
