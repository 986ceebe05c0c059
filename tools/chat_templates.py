"""Whether conversations become the ids that transformers makes of them, for each chat template in a folder.

    python -m tools.chat_templates FOLDER [--conversations 50] [--json OUT]

FOLDER holds templates as `*.jinja`. Each is given to a small tokenizer that puts `<s>` before texts of its own accord,
as those of many models do, so that a beginning that comes twice shows. Conversations have one to six turns, with and
without a system message, with blanks, other scripts, markup and special tokens in them, and end with a question or (to
be gone on with) in the middle of an answer. What a template refuses both have to refuse. Exit code 1: some differ.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import processors
from transformers import AutoTokenizer

from tests.tiny_models import write_tokenizer
from umbel.errors import InvalidRequest
from umbel.ir.chat import Chat, ChatOptions
from umbel.text.tokenizer import Tokenizer

TEXTS = (
    "What is 7 * 8?", "  Blanks before, and behind \n\n", "Grüße aus Zürich — 你好, мир 🙂", "{{ messages }} {% raw %}",
    "<s>[INST] x", "<|im_start|>user\nhi<|im_end|>", "a\tb\r\nc", "'\"\\ <b>&amp;</b>", "One.\n\nTwo.\n", "x" * 300,
    "0", "Under\u00a0the\u2028line",
)  # fmt: skip
Conversation = tuple[list[dict[str, str]], bool]


def conversations(count: int) -> Iterator[Conversation]:
    """Messages, and whether the last of them is to be gone on with; the same in every run."""
    rng = random.Random(0)
    for i in range(count):
        turns = [{"role": "system", "content": rng.choice(TEXTS)}] if i % 3 == 0 else []
        goes_on = i % 5 == 4
        for turn in range(2 * rng.randrange(3) + 1 + goes_on):
            text = rng.choice(TEXTS) + rng.choice(("", f" {turn}"))
            turns.append({"role": ("user", "assistant")[turn % 2], "content": text})
        yield turns, goes_on


def write(folder: Path, template: str) -> None:
    """A tokenizer with the template, which begins texts with `<s>`."""
    write_tokenizer(folder, template)
    fast = AutoTokenizer.from_pretrained(folder, bos_token="<s>")
    start = fast.convert_tokens_to_ids("<s>")
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", start)]
    )
    fast.save_pretrained(folder)


def compared(template: str, asked: list[Conversation]) -> Counter[str]:
    """How many conversations got equal ids, were refused by both, or differ."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), template)
        theirs = AutoTokenizer.from_pretrained(name)
        options = [ChatOptions(opens_answer=not goes_on, continues=goes_on) for _, goes_on in asked]
        given = [Chat(messages, each) for (messages, _), each in zip(asked, options, strict=True)]
        found = Tokenizer.load(Path(name)).encode_chat(given)
        wanted = [ids_of(theirs, *each) for each in asked]
    return Counter(verdict(mine, ids) for mine, ids in zip(found, wanted, strict=True))


def ids_of(tokenizer: Any, messages: list[dict[str, str]], goes_on: bool) -> list[int] | None:
    """What transformers makes of a conversation; None where it refuses it."""
    how = {"add_generation_prompt": not goes_on, "continue_final_message": goes_on, "return_dict": True}
    try:
        return list(tokenizer.apply_chat_template(messages, **how)["input_ids"])
    except Exception:  # of the template itself, or of messages that it does not show
        return None


def verdict(mine: list[int] | InvalidRequest, wanted: list[int] | None) -> str:
    """What became of one conversation."""
    if isinstance(mine, InvalidRequest):
        return "refused by both" if wanted is None else "refused by umbel alone"
    return "equal" if mine == wanted else "different"


def main() -> int:
    """Print a line for each template."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--conversations", type=int, default=50)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    given, found = list(conversations(asked.conversations)), dict[str, Counter[str]]()
    for path in sorted(asked.folder.glob("*.jinja")):
        found[path.stem] = compared(path.read_text(), given)
        print(f"{path.stem}: {', '.join(f'{count} {kind}' for kind, count in found[path.stem].items())}", flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1))
    return int(any(each["different"] + each["refused by umbel alone"] for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
