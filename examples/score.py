"""Compares answers of `umbel run` with the labels of examples/labels.jsonl: the share that is right, per task.

python examples/score.py answers.jsonl examples/labels.jsonl [--least 0.9]
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path


def main() -> int:
    """Print one line per task; exit code 1 when a row is missing or the share that is right is below `--least`."""
    parser = argparse.ArgumentParser(description="Share of right answers, per task.")
    parser.add_argument("answers", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--least", type=float, default=0.0, help="smallest share that counts as success")
    given = parser.parse_args()
    answers = {row["custom_id"]: row for row in read(given.answers)}
    labels = read(given.labels)
    total, right = Counter(), Counter()
    for label in labels:
        total[label["task"]] += 1
        right[label["task"]] += is_right(answers.get(label["custom_id"], {}), label)
    for task in sorted(total):
        print(f"{task:<12}{right[task]:>5} of {total[task]:<5}{right[task] / total[task]:>7.1%}")
    share = right.total() / max(total.total(), 1)
    print(f"{'all':<12}{right.total():>5} of {total.total():<5}{share:>7.1%}")
    missing = [label["custom_id"] for label in labels if label["custom_id"] not in answers]
    if missing:
        print(f"{len(missing)} rows have no answer, the first is {missing[0]}", file=sys.stderr)
    return 1 if missing or share < given.least else 0


def read(path: Path) -> list[dict]:
    """All objects of a JSONL file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def is_right(answer: dict, label: dict) -> bool:
    """Whether the text is the expected one; JSON is compared as values, so spaces do not count."""
    text = (answer.get("text") or "").strip()
    if label["task"] != "extract":
        return text == label["expected"].strip()
    try:
        return json.loads(text) == json.loads(label["expected"])
    except json.JSONDecodeError:
        return False


if __name__ == "__main__":
    sys.exit(main())
