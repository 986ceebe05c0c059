"""Write an example batch (chat rows) and its expected answers from held-out material."""

import argparse
import json
import random
from pathlib import Path

import mix

from umbel.demo.tasks import labels
from umbel.demo.tasks.cases import held_out_item

INTRO = "You help a small shop with its daily work. Be exact and short."
MAX_TOKENS = {"copy": 40, "extract": 48, "lookup": 16, "passage": 16, "add": 8}


def rows(seed, count):
    """(row, label) pairs: three labelling groups, each below one shared few-shot prompt, and single questions."""
    rng, out = random.Random(seed), []
    shared = shared_prompt(rng)
    for i in range(count * 3 // 10):
        out.append(shop_row(rng, shared, i))
    for kind in ("sentiment", "topic", "intent"):
        system, items = group(rng, kind, count // 6)
        out += [(messages(system, it.prompt), it) for it in items]
    singles = ("lookup", "passage", "extract", "copy", "add")
    while len(out) < count:
        it = held_out_item(rng, singles[len(out) % len(singles)], rng.choice((80, 150, 260)))
        out.append((messages(None, it.prompt), it))
    rng.shuffle(out)
    return [finish(i, m, it) for i, (m, it) in enumerate(out)]


def shared_prompt(rng):
    """One long system prompt with worked examples of several tasks."""
    lines = [INTRO, "Examples:"]
    for family in (labels, *list(mix.CHAT)[1:5]):
        it = family.item(rng, "train", 40)
        lines.append(f"User: {it.prompt}\nAssistant: {it.answer}")
    return "\n".join(lines)


def shop_row(rng, system, i):
    """A question of any task below the shared prompt."""
    task = ("sentiment", "intent", "extract", "add", "copy", "topic")[i % 6]
    it = held_out_item(rng, task, 0)
    return messages(system, it.prompt), it


def group(rng, kind, n):
    """A labelling system prompt of the wanted kind with six examples, and its items."""
    while True:
        system, items = labels.thread(rng, "eval", n, examples=6)
        if items[0].task == kind:
            return system, items


def messages(system, user):
    """Chat messages."""
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": user}]


def finish(i, chat, it):
    """(input row, label row)."""
    name = f"task-{i:04d}"
    row = {
        "custom_id": name,
        "messages": chat,
        "max_tokens": MAX_TOKENS.get(it.task, 8),
    }
    return row, {"custom_id": name, "expected": it.answer, "task": it.task}


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    pairs = rows(args.seed, args.count)
    for path, column in ((args.tasks, 0), (args.labels, 1)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(p[column]) + "\n" for p in pairs))
    print(f"{len(pairs)} rows")


if __name__ == "__main__":
    main()
