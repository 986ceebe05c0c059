"""Rows per second on shared-prefix batches: Umbel against Hugging Face `generate` with padded batches of its best size.

    python bench/shared_prefix.py [--repeats 3] [--threads 2] [--dtype float32] [--json OUT]

Both engines run the same random model (SmolLM2-135M's shape) on the same prompts, threads and dtype, in turn, after a
warm-up. Workloads: A = 4 groups x 32 rows, 512 shared + 32 own tokens, 4 out; B = 64 rows, 1,024 + 32 tokens, 32 out.
The peer's batch size is the best of those probed on one batch each. Greedy tokens are compared row by row.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from umbel import LLM, SamplingParams

WORKLOADS = {"A": (4, 32, 512, 32, 4), "B": (1, 64, 1024, 32, 32)}  # groups, rows, shared, own, out
Prompts = list[list[int]]


def make_model(directory: Path, dtype: torch.dtype) -> LlamaForCausalLM:
    """A random model of SmolLM2-135M's shape, saved for Umbel and returned for the peer."""
    config = LlamaConfig(
        hidden_size=576,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        vocab_size=49152,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_theta=100000.0,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(dtype).eval()
    model.save_pretrained(directory)
    return model


def make_prompts(groups: int, rows: int, shared: int, own: int, seed: int) -> Prompts:
    """Prompts in shuffled order; every seed has its own content."""
    draw = random.Random(seed)
    prompts = []
    for _ in range(groups):
        prefix = [draw.randrange(300, 32000) for _ in range(shared)]
        prompts += [prefix + [draw.randrange(300, 32000) for _ in range(own)] for _ in range(rows)]
    draw.shuffle(prompts)
    return prompts


def run_peer(model: LlamaForCausalLM, prompts: Prompts, out: int, batch: int) -> Prompts:
    """Transformers, one padded batch after the other (the prompts are of equal length, so nothing is padded)."""
    config = GenerationConfig(max_new_tokens=out, min_new_tokens=out, do_sample=False, pad_token_id=1)
    answers = []
    for at in range(0, len(prompts), batch):
        ids = torch.tensor(prompts[at : at + batch])
        with torch.inference_mode():
            full = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        answers += full[:, ids.shape[1] :].tolist()
    return answers


def run_umbel(llm: LLM, prompts: Prompts, out: int) -> Prompts:
    """Every prompt at once."""
    params = SamplingParams(temperature=0.0, max_tokens=out, ignore_eos=True)
    return [list(o.outputs[0].token_ids) for o in llm.generate(prompts, params)]


def timed(act: Callable[[], Prompts]) -> tuple[float, Prompts]:
    """Seconds and answers."""
    begin = time.perf_counter()
    answers = act()
    return time.perf_counter() - begin, answers


def best_batch(model: LlamaForCausalLM, prompts: Prompts, out: int, sizes: list[int]) -> int:
    """The probed batch size with the most rows per second, on one batch each."""
    rates = {b: b / timed(lambda b=b: run_peer(model, prompts[:b], out, b))[0] for b in sizes}
    print("  peer, rows/s by batch size:", {b: round(r, 2) for b, r in rates.items()}, file=sys.stderr)
    return max(rates, key=lambda b: rates[b])


def measure(name: str, llm: LLM, model: LlamaForCausalLM, repeats: int, sizes: list[int]) -> dict[str, object]:
    """Both engines in turn, `repeats` times, with fresh content each time."""
    groups, rows, shared, own, out = WORKLOADS[name]
    run_umbel(llm, make_prompts(1, 4, 64, 8, 99), 2)
    batch = best_batch(model, make_prompts(groups, rows, shared, own, 100), out, sizes)
    ours, peers, equal = [], [], []
    for repeat in range(repeats):
        prompts = make_prompts(groups, rows, shared, own, 101 + repeat)
        seconds, mine = timed(lambda p=prompts: run_umbel(llm, p, out))
        ours.append(len(prompts) / seconds)
        seconds, theirs = timed(lambda p=prompts: run_peer(model, p, out, batch))
        peers.append(len(prompts) / seconds)
        equal.append(sum(a == b for a, b in zip(mine, theirs, strict=True)) / len(prompts))
        print(f"  {name} {repeat}: {ours[-1]:.2f} against {peers[-1]:.2f} rows/s", file=sys.stderr)
    ratios = [a / b for a, b in zip(ours, peers, strict=True)]
    return {
        "workload": name,
        "umbel_rows_s": spread(ours),
        "peer_rows_s": spread(peers),
        "ratio": spread(ratios),
        "peer_batch": batch,
        "rows_with_equal_tokens": statistics.mean(equal),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, lowest, highest."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def main() -> None:
    """Run both workloads and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", default="4,8,16,32", help="batch sizes of the peer to try")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--workloads", default="A,B")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder), getattr(torch, asked.dtype))
        llm = LLM(folder, dtype=asked.dtype, threads=asked.threads, device="cpu")
        sizes = [int(size) for size in asked.batches.split(",")]
        results = [measure(name, llm, model, asked.repeats, sizes) for name in asked.workloads.split(",")]
    report = {
        "peer": f"transformers {transformers.__version__} generate, sdpa",
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {asked.threads} threads, {torch.backends.cpu.get_cpu_capability()}",
        "dtype": asked.dtype,
        "results": results,
    }
    print("| workload | Umbel rows/s | transformers rows/s | ratio | peer batch | rows with equal tokens |")
    print("|---|---|---|---|---|---|")
    for r in results:
        cells = [f"{r[k]['median']} [{r[k]['min']}, {r[k]['max']}]" for k in ("umbel_rows_s", "peer_rows_s", "ratio")]
        print(f"| {r['workload']} | {' | '.join(cells)} | {r['peer_batch']} | {r['rows_with_equal_tokens']:.1%} |")
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
