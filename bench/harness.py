"""lm-evaluation-harness through `umbel` and through its own `hf`: whether they agree, and what questions of MMLU take.

    python bench/harness.py agree MODEL DATA [--items 40] [--json OUT]
    python bench/harness.py cost MODEL DATA [--questions 1000] [--peer-every 10] [--batch-sizes 1,4,16] [--json OUT]

DATA is a folder with tasks/mmlu_test.jsonl.gz, qmsum.jsonl.gz and gsm8k_test.jsonl.gz; without them, or without
lm-evaluation-harness, the benchmark is left out, by name. Both run in float32 on the same threads (OMP_NUM_THREADS).

`agree` evaluates choices (loglikelihood), meetings (loglikelihood_rolling) and sums (generate_until) with both, and the
log-likelihoods with `hf` in float64 too, which says whose are nearer. `cost` is of processor seconds without loading:
all questions through `umbel`; every so many of a subject's through `hf`, which shares nothing between questions, in the
fastest of some batch sizes (chosen on the first question of each subject), and multiplied.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from umbel.models.families import resolve_model

FILES = ("mmlu_test", "qmsum", "gsm8k_test")
SHOTS = 5
CHOICES = {
    "output_type": "multiple_choice",
    "fewshot_split": "shots",
    "fewshot_config": {"sampler": "first_n"},
    "num_fewshot": SHOTS,
    "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\n"
    "Answer:",
    "doc_to_choice": ["A", "B", "C", "D"],
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"}],
}
MEETINGS = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{transcript[:8000]}}",
    "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
}
SUMS = {
    "output_type": "generate_until",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{answer.split('### ')[-1]}}",
    "generation_kwargs": {"until": ["Question:"], "max_gen_toks": 48},
    "metric_list": [{"metric": "exact_match"}],
}


def main() -> int:
    """Print the figures; with --json, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("agree", "cost"))
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--items", type=int, default=40, help="Of each task.")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--peer-every", type=int, default=10)
    parser.add_argument("--batch-sizes", default="1,4,16")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    missing = [name for name in FILES if not (asked.data / "tasks" / f"{name}.jsonl.gz").exists()]
    if missing or find_spec("lm_eval") is None:
        print(f"left out: {', '.join(missing) or 'lm-evaluation-harness'} is not there", file=sys.stderr)
        return 0
    os.environ.update(HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1")
    with tempfile.TemporaryDirectory() as folder:
        tasks = write_tasks(Path(folder), asked.data / "tasks")
        found = agree(asked, folder, tasks) if asked.what == "agree" else cost(asked, folder, tasks)
    print("\n".join(f"{name:<60}{value:>16,.6g}" for name, value in found.items()))
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1))
    return 0


def write_tasks(folder: Path, data: Path) -> list[str]:
    """Writes a task of each subject, `meetings` and `sums`; returns the names of the subjects' tasks."""
    subjects: dict[str, list[Any]] = defaultdict(list)
    for row in read(data, "mmlu_test"):
        subjects[row["subject"]].append(row)
    for subject, rows in subjects.items():
        about = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        write_task(folder, subject, {**CHOICES, "description": about}, test=rows[SHOTS:], shots=rows[:SHOTS])
    write_task(folder, "meetings", MEETINGS, test=list(read(data, "qmsum")))
    write_task(folder, "sums", SUMS, test=list(read(data, "gsm8k_test")))
    return list(subjects)


def read(data: Path, name: str) -> Iterator[Any]:
    """The rows of a file."""
    with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def write_task(folder: Path, name: str, task: dict[str, Any], **splits: list[Any]) -> None:
    """A task as the harness reads it, with its rows beside it."""
    files = {split: str(folder / f"{name}.{split}.jsonl") for split in splits}
    for split, rows in splits.items():
        Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
    (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **given, **task}))


def evaluated(model: Any, folder: str, tasks: list[str], **options: Any) -> tuple[dict[str, Any], float]:
    """What the harness says of a model, and the processor seconds that it took."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=folder, include_defaults=False)
    began = time.process_time()
    found = simple_evaluate(
        model=model, tasks=tasks, task_manager=manager, bootstrap_iters=0, log_samples=True, **options
    )
    return found, time.process_time() - began


def agree(asked: argparse.Namespace, folder: str, subjects: list[str]) -> dict[str, float]:
    """Scores and answers of both; log-likelihoods of both against float64."""
    from lm_eval.models.huggingface import HFLM

    from umbel.harness.model import UmbelLM

    tasks, directory = [subjects[0], "meetings", "sums"], str(resolve_model(asked.model))
    mine = UmbelLM(directory, dtype="float32", device="cpu")
    same = {"device": "cpu", "batch_size": 4, "max_length": mine.max_length}
    models = {
        "umbel": mine,
        "hf": HFLM(directory, dtype="float32", **same),
        "float64": HFLM(directory, dtype="float64", **same),
    }
    found = {name: evaluated(model, folder, tasks, limit=asked.items)[0] for name, model in models.items()}
    figures: dict[str, float] = {}
    for task in tasks:
        answers = {name: [_answer(s) for s in each["samples"][task]] for name, each in found.items()}
        figures[f"{task}: items"] = len(answers["hf"])
        for metric, value in found["hf"]["results"][task].items():
            if isinstance(value, float):
                figures[f"{task}: {metric}, hf"] = value
                figures[f"{task}: {metric}, umbel"] = found["umbel"]["results"][task][metric]
        if task == "sums":
            same = sum(one == other for one, other in zip(answers["umbel"], answers["hf"], strict=True))
            figures[f"{task}: equal texts"] = same
            continue
        for one, other in (("umbel", "hf"), ("umbel", "float64"), ("hf", "float64")):
            pairs = zip(answers[one], answers[other], strict=True)
            apart = max(abs(a - b) for both in pairs for a, b in zip(*both, strict=True))
            figures[f"{task}: largest difference, {one} to {other}"] = apart
        figures[f"{task}: largest log-likelihood"] = max(-value for each in answers["hf"] for value in each)
    return figures


def _answer(sample: Any) -> list[Any]:
    """Log-likelihoods of a sample's requests, or its texts."""
    firsts = [each[0] for each in sample["resps"]]
    return [each[0] if isinstance(each, tuple) else each for each in firsts]


def cost(asked: argparse.Namespace, folder: str, subjects: list[str]) -> dict[str, float]:
    """Processor seconds of both, in turn."""
    from lm_eval.models.huggingface import HFLM

    from umbel.harness.model import UmbelLM

    each, directory = -(-asked.questions // len(subjects)), str(resolve_model(asked.model))
    mine = UmbelLM(directory, dtype="float32", device="cpu")
    peer = HFLM(directory, dtype="float32", device="cpu", max_length=mine.max_length)
    sizes: dict[int, float] = {}
    for size in map(int, asked.batch_sizes.split(",")):
        peer.batch_size_per_gpu = size
        sizes[size] = evaluated(peer, folder, subjects, limit=1)[1]
    best = min(sizes, key=sizes.__getitem__)
    peer.batch_size_per_gpu = best
    chosen = {name: list(range(0, each, asked.peer_every)) for name in subjects}
    theirs, peer_seconds = evaluated(peer, folder, subjects, samples=chosen)
    ours, seconds = evaluated(mine, folder, subjects, limit=each)
    questions, few = each * len(subjects), sum(map(len, chosen.values()))
    figures = {f"hf, batches of {size}, {len(subjects)} questions": spent for size, spent in sizes.items()}
    apart, same = _beside(ours, theirs, subjects)
    return figures | {
        f"umbel, {questions:,} questions, processor seconds": seconds,
        f"hf, {few} of them in batches of {best}, processor seconds": peer_seconds,
        "times as many for a question": peer_seconds / few / (seconds / questions),
        f"largest difference of a log-likelihood, {few} questions": apart,
        f"equal choices, of {few} questions": same,
    }


def _beside(ours: Any, theirs: Any, subjects: list[str]) -> tuple[float, int]:
    """The largest difference of a log-likelihood of the questions that both answered, and of how many the choice is
    the same."""
    apart, same = 0.0, 0
    for name in subjects:
        mine = {sample["doc_hash"]: sample for sample in ours["samples"][name]}
        for sample in theirs["samples"][name]:
            one, other = _answer(mine[sample["doc_hash"]]), _answer(sample)
            apart = max(apart, *(abs(a - b) for a, b in zip(one, other, strict=True)))
            same += one.index(max(one)) == other.index(max(other))
    return apart, same


if __name__ == "__main__":
    sys.exit(main())
