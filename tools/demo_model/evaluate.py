"""Exact match of an exported folder on held-out prompts, by greedy Hugging Face generation in float32."""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from umbel.demo.tasks import addition, copying, labels
from umbel.demo.tasks.cases import held_out_item, is_right, lookup_of_size

CHAT = {
    "topic": ("topic", 0),
    "sentiment": ("sentiment", 0),
    "intent": ("intent", 0),
    "copy": ("copy", 0),
    "add": ("add", 0),
    "extract": ("extract", 0),
    "story": ("story", 0),
    "lookup_100": ("lookup", 85),
    "lookup_300": ("lookup", 285),
    "lookup_1000": ("lookup", 980),
    "lookup_2000": ("lookup", 1980),
    "lookup_3500": ("lookup", 3480),
    "passage_150": ("passage", 150),
    "passage_300": ("passage", 300),
    "passage_1000": ("passage", 1000),
    "passage_2000": ("passage", 2500),
}
PLAIN = {"fewshot_plain": labels, "copy_plain": copying, "add_plain": addition}


def chat_case(tok, rng, name):
    """(prompt, answer) of one chat question; a context is brought near its size in tokens by trying line counts."""
    task, size = CHAT[name]
    count = lambda text: len(tok(text).input_ids)  # noqa: E731
    item = lookup_of_size(rng, size, count) if task == "lookup" else held_out_item(rng, task, size)
    return chat(tok, [{"role": "user", "content": item.prompt}]), item.answer


def chat(tok, messages):
    """The templated prompt as text."""
    return tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def fewshot_chat(tok, rng):
    """A system prompt with labels and four examples, then one held-out text."""
    system, items = labels.thread(rng, "eval", 1, examples=4)
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": items[0].prompt},
    ]
    return chat(tok, messages), items[0].answer


def plain_case(rng, family):
    """A few-shot completion whose shown examples are from training and whose last line is held out."""
    kinds = {"train": rng.randint(3, 6), "eval": 1}
    if family is labels:
        doc = labels.plain(rng, "eval", kinds["train"] + 1, shown=kinds["train"])
        segments = doc.segments
    else:
        state = rng.getstate()
        segments = family.plain(rng, "train", kinds["train"]).segments
        rng.setstate(state)  # the same wording again
        segments = segments + family.plain(rng, "eval", 1).segments
    *before, answer, _ = [s[0] for s in segments]
    return "".join(before), answer.strip()


def cases_of(name, tok, count, seed):
    """Prompts and answers of one task."""
    rng = random.Random(f"{seed}-{name}")
    if name in CHAT:
        return [chat_case(tok, rng, name) for _ in range(count)]
    if name == "fewshot_chat":
        return [fewshot_chat(tok, rng) for _ in range(count)]
    return [plain_case(rng, PLAIN[name]) for _ in range(count)]


@torch.no_grad()
def generate(model, tok, prompts, most=48, tokens_per_batch=12000):
    """Greedy continuations (text up to the end mark), batches of similar length, left padded."""
    order, out = (
        sorted(range(len(prompts)), key=lambda i: len(prompts[i])),
        [""] * len(prompts),
    )
    while order:
        longest = len(tok(prompts[order[0]]).input_ids) + most
        chunk, order = (
            order[: max(1, tokens_per_batch // (longest + 16))],
            order[max(1, tokens_per_batch // (longest + 16)) :],
        )
        batch = tok(
            [prompts[i] for i in chunk],
            return_tensors="pt",
            padding=True,
            padding_side="left",
        )
        batch = {k: batch[k].to(model.device) for k in ("input_ids", "attention_mask")}
        ids = model.generate(**batch, max_new_tokens=most, do_sample=False)
        for i, row in zip(chunk, ids[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            stop = next((n for n, t in enumerate(row) if t in (0, 2)), len(row))
            out[i] = tok.decode(row[:stop])
    return out


def right(name, guess, answer):
    """Exact match; a completion counts up to its line end."""
    return is_right(name, guess.split("\n")[0].strip() if name.endswith("_plain") else guess, answer)


@torch.no_grad()
def agreement(model, draft, tok, prompts, outputs):
    """Share of the model's own greedy tokens (end mark included) that the draft would have chosen, given its prefix."""
    same = total = 0
    for prompt, output in zip(prompts, outputs, strict=True):
        head = tok(prompt, return_tensors="pt").input_ids
        tail = torch.tensor([[*tok(output).input_ids, 2]])
        ids = torch.cat([head, tail], 1).to(model.device)
        span = slice(head.shape[1] - 1, ids.shape[1] - 1)
        want = model(ids).logits[0, span].argmax(-1)
        same += int((draft(ids).logits[0, span].argmax(-1) == want).sum())
        total += want.numel()
    return same, total


def load(folder, device):
    """An exported model, its bf16 weights widened to float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    return model.to(device).eval()


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--tasks", nargs="*", default=[*CHAT, "fewshot_chat", *PLAIN])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--show", action="store_true", help="print up to five wrong answers per task")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    tok, model = (
        AutoTokenizer.from_pretrained(args.model),
        load(args.model, args.device),
    )
    draft = load(args.draft, args.device) if args.draft else None
    table, same, total = {}, 0, 0
    for name in args.tasks:
        began = time.monotonic()
        count = args.count if not name.endswith(("000", "3500")) else max(20, args.count // 3)
        cases = cases_of(name, tok, count, args.seed)
        guesses = generate(model, tok, [p for p, _ in cases])
        good = [right(name, g, a) for g, (_, a) in zip(guesses, cases, strict=True)]
        size = sum(len(tok(p).input_ids) for p, _ in cases) / count
        table[name] = {
            "accuracy": sum(good) / count,
            "count": count,
            "prompt_tokens": round(size),
        }
        if draft is not None and "plain" not in name:
            s, t = agreement(model, draft, tok, [p for p, _ in cases], guesses)
            table[name]["draft_agreement"] = round(s / t, 4)
            same, total = same + s, total + t
        extra = f"  draft {table[name]['draft_agreement']:6.1%}" if "draft_agreement" in table[name] else ""
        print(
            f"{name:14} {sum(good) / count:6.1%}  n={count:<4} prompt ~{size:5.0f} tokens{extra}"
            f"  {time.monotonic() - began:5.1f} s",
            flush=True,
        )
        if args.show:
            wrong = [(g, a, p[-160:]) for g, (p, a), ok in zip(guesses, cases, good, strict=True) if not ok]
            for g, a, p in wrong[:5]:
                print(f"    got {g!r} wanted {a!r} after {p!r}")
    if total:
        table["draft_agreement"] = round(same / total, 4)
        print(f"draft agreement {same / total:.1%} of {total} tokens")
    if args.json:
        args.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
