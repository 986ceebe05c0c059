"""Labels rows of the example job by scores and by generating the label, and compares both: python examples/label.py

By scores, one pass over each prompt gives the most likely label and the probability of every one; generating takes a
step for each token of the label, gives no probabilities, and may give a text that is no label.
"""

import json
import time
from pathlib import Path

from umbel import LLM, SamplingParams

HERE = Path(__file__).parent
TASKS = ("sentiment", "intent", "topic")


def main() -> None:
    """Print for each task the rows, the labels, and how many each way got right."""
    rows = {row["custom_id"]: row for row in read(HERE / "tasks.jsonl")}
    labels = [label for label in read(HERE / "labels.jsonl") if label["task"] in TASKS]
    with LLM("demo", dtype="float32", device="cpu") as llm:
        for task in TASKS:
            mine = [label for label in labels if label["task"] == task]
            prompts = [{"messages": rows[label["custom_id"]]["messages"]} for label in mine]
            expected = [label["expected"] for label in mine]
            choices = sorted(set(expected))
            began = time.perf_counter()
            chosen = llm.choose(prompts, choices)
            scored = time.perf_counter() - began
            outputs = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=8))
            generated = time.perf_counter() - began - scored
            by_scores = sum(found.choice == want for found, want in zip(chosen, expected, strict=True))
            by_text = sum(
                output.outputs[0].text.strip() == want for output, want in zip(outputs, expected, strict=True)
            )
            sure = sum(max(found.probabilities) for found in chosen) / len(chosen)
            print(f"{task}: {len(prompts)} rows, {len(choices)} labels")
            print(f"  by scores     {by_scores:>3} right, {scored:.2f} s, mean probability of the label {sure:.2f}")
            print(f"  by generating {by_text:>3} right, {generated:.2f} s")


def read(path: Path) -> list[dict]:
    """All objects of a JSONL file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
