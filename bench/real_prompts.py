"""Writes a job of real few-shot prompts: `python bench/real_prompts.py DATA OUT.jsonl [--task mmlu|gsm8k] [--rows N]`.

DATA is a folder with `mmlu_test.jsonl.gz` (subject, question, choices, answer) or `gsm8k_train.jsonl.gz` and
`gsm8k_test.jsonl.gz` (question, answer). MMLU: the first five questions of a subject are the shots of its others.
GSM8K: the first eight training questions are the shots of all others.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

Rows = Iterator[tuple[str, str]]


def read(path: Path) -> list[dict[str, object]]:
    """All objects of a compressed JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def mmlu(data: Path) -> Rows:
    """(custom id, prompt) of each question behind the shots of its subject."""
    by_subject: dict[str, list[dict[str, object]]] = {}
    for row in read(data / "mmlu_test.jsonl.gz"):
        by_subject.setdefault(str(row["subject"]), []).append(row)
    for subject, rows in by_subject.items():
        shots = "".join(f"{_question(row)} {'ABCD'[int(str(row['answer']))]}\n\n" for row in rows[:5])
        head = f"The following are multiple choice questions about {subject.replace('_', ' ')}.\n\n"
        for i, row in enumerate(rows[5:]):
            yield f"{subject}-{i}", head + shots + _question(row)


def _question(row: dict[str, object]) -> str:
    choices = row["choices"]
    assert isinstance(choices, list)
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=True))
    return f"{row['question']}\n{options}\nAnswer:"


def gsm8k(data: Path) -> Rows:
    """(custom id, prompt) of each question behind eight worked ones."""
    train, test = read(data / "gsm8k_train.jsonl.gz"), read(data / "gsm8k_test.jsonl.gz")
    shots = "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in train[:8])
    for name, rows in (("test", test), ("train", train[8:])):
        for i, row in enumerate(rows):
            yield f"{name}-{i}", f"{shots}Question: {row['question']}\nAnswer:"


def main() -> None:
    """Write the job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", choices=("mmlu", "gsm8k"), default="gsm8k")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, default=4)
    asked = parser.parse_args()
    prompts = mmlu(asked.data) if asked.task == "mmlu" else gsm8k(asked.data)
    with asked.out.open("w", encoding="utf-8") as out:
        for _, (name, prompt) in zip(range(asked.rows), prompts, strict=False):
            row = {"custom_id": name, "prompt": prompt, "max_tokens": asked.max_tokens, "temperature": 0}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
