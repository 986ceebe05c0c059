"""Prompt tokens that jobs with documents compute: as they come, in the order that shares most, with documents apart.

    python -m bench.documents DATA [--rows 75]

DATA is a folder with tasks/ (musique_rag, nq_open_oracle) and tokenizers/gpt2. Rows are MuSiQue's questions with the
ten contexts that CacheBlend gives each, and questions of NQ-open with the ten passages of all of them that TF-IDF finds
nearest. Each job is run by a tiny model of random weights, in float32, and what is printed is what its engine counted;
tokens are GPT-2's, and documents are tokens of their own in all columns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import ByteLevelBPETokenizer

from bench.layout import musique, nearest
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.ir.params import SamplingParams
from umbel.jobs.read.formats.documents import digest_of
from umbel.plan.document_order import RowDocuments, document_tree

ONE = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
TECHNIQUES = ("turbo-rag",)


def prompts_of(rows: list[list[str]], encode: Any) -> list[dict[str, Any]]:
    """The documents of each row as a prompt, behind a line that all share and before a question of its own."""
    found = []
    for number, row in enumerate(rows):
        ids, spans = encode("Read the passages and answer the question.\n\n"), []
        for text in row:
            document = encode(text + "\n\n")
            spans.append([len(ids), len(ids) + len(document)])
            ids = ids + document
        found.append({"prompt_token_ids": ids + encode(f"Question {number}: what follows?"), "documents": spans})
    return found


def ordered(rows: list[list[str]]) -> list[list[str]]:
    """The documents of each row in the order of their tree."""
    digests, nothing = [[digest_of(text) for text in row] for row in rows], [(0, 0)] * len(rows)
    lengths = {digest_of(text): len(text) for row in rows for text in row}
    tree = document_tree(RowDocuments(0, nothing, nothing, digests, lengths))
    return [[row[at] for at in tree.order(some)] for row, some in zip(rows, digests, strict=True)]


def computed(model: Path, prompts: list[dict[str, Any]], **options: Any) -> int:
    """Prompt tokens that an engine computes of a job."""
    given = {"dtype": "float32", "device": "cpu", "threads": 1, "allow_lossy": True, **options}
    if "technique" not in given:
        prompts = [{"prompt_token_ids": prompt["prompt_token_ids"]} for prompt in prompts]
    with LLM(str(model), **given) as llm:
        llm.generate(prompts, ONE, use_tqdm=False, on_error="raise")
        stats = llm.stats()
    return stats.computed_prompt_tokens + stats.recomputed_tokens


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=75)
    given = parser.parse_args()
    gpt2 = given.data / "tokenizers/gpt2"
    tokenizer = ByteLevelBPETokenizer(str(gpt2 / "vocab.json"), str(gpt2 / "merges.txt"))
    heads = ["rows", "prompt tokens", "as they come", "`--layout documents`", *(f"`{name}`" for name in TECHNIQUES)]
    print("| " + " | ".join(heads) + " |\n| --- |" + " ---: |" * (len(heads) - 1))
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"vocab_size": len(json.loads((gpt2 / "vocab.json").read_text())), "max_position_embeddings": 8192}
        model = make_model(Path(folder) / "tiny", "qwen3", hidden_size=32, num_attention_heads=2, head_dim=16, **sizes)
        for name, rows in (("MuSiQue", musique(given.data)), ("NQ-open", nearest(given.data, 10))):
            some = rows[: given.rows]
            encode = lambda text: tokenizer.encode(text).ids  # noqa: E731
            prompts, laid = prompts_of(some, encode), prompts_of(ordered(some), encode)
            total = sum(len(prompt["prompt_token_ids"]) for prompt in prompts)
            found = [computed(model, prompts), computed(model, laid)]
            found += [computed(model, prompts, technique=technique) for technique in TECHNIQUES]
            cells = (f"{part:,} ({part / total:.1%})" for part in found)
            print(f"| {len(some)} of {name} | {total:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
