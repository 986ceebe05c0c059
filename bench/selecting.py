"""What selectors save of one layer's attention, and what they cost: paired times against dense attention.

    python bench/selecting.py pages:budget=0.25 vertical-slash [--repeats 3] [--prompt 32768] [--answers 16384]
    python bench/selecting.py --whole vertical-slash


For selectors of prompts a chunk of 1,024 tokens at the end of a prompt, whose index is made again each time; for those
of answers 16 rows that share nothing. The engines take turns; figures are the medians of both times and of the ratios
of each pair, dense over sparse, with the least and the most, as a Markdown table. Heads are planted (see `planted`):
random ones have nothing to select. "kept" is the share of the weights of dense attention that is on what rows read, the
mean of some rows and heads, and the least of a head.

`--whole` adds up a prompt from its chunks: those that end at its quarters are timed, the others lie on lines between
them, and each takes the products of a layer of Qwen3-0.6B beside its attention, which are timed too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from attention import CPU, PAGE, SHAPES, Case, step_of
from torch import Tensor

from umbel import registry
from umbel.attention.native import NativeAttention
from umbel.attention.select.selected import SelectedAttention
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.dispatch import kernels
from umbel.kernels.view import GRID
from umbel.kv.store import KVStore

CHUNK = 1024
STRENGTH = 1.5  # of what is planted: exp(17) against the sum of exp(N(0, 1.5)) over all other keys


def planted(spec: ModelSpec, length: int) -> tuple[Tensor, Tensor]:
    """Queries (`[length, heads, dim]`) and keys (`[kv heads, length, dim]`) of a path. Each KV head is of one kind in
    turn: 24 tokens that all look at (columns), four distances (diagonals), both, what is near and the first tokens."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(spec.n_kv_heads, length, spec.head_dim, generator=generator)
    queries = 0.1 * torch.randn(spec.n_kv_heads, length, spec.head_dim, generator=generator)
    for head in range(spec.n_kv_heads):
        kind, direction = head % 4, torch.randn(spec.head_dim, generator=generator)
        if kind in (0, 2, 3):
            at = torch.randint(length * 3 // 4, (24,), generator=generator) if kind != 3 else torch.arange(4)
            keys[head, at] = direction
            queries[head] += STRENGTH * direction
        back = {1: torch.randint(2000, length // 2, (4,), generator=generator).tolist(), 3: [64]}
        back[2] = back[1][:2] if 1 in back else []
        for distance in back.get(kind, []):
            queries[head, distance:] += STRENGTH * keys[head, :-distance]
    return queries.repeat_interleave(spec.n_heads // spec.n_kv_heads, 0).transpose(0, 1).contiguous(), keys


class Bench:
    """One layer's memory, with the paths of a case in it, and the same case for dense attention and for selectors."""

    def __init__(self, case: Case):
        heads, kv_heads, dim = SHAPES["0.6B"]
        self.spec = ModelSpec("qwen3", 97, 48, 1, heads, kv_heads, dim, 64, 2**20, 1e-6, 1e4)
        self.case, self.length = case, case.shared + case.own
        pages = case.rows * self.length // PAGE
        self.store = KVStore(self.spec, pages, PAGE, torch.float32, CPU)
        self.queries, keys = planted(self.spec, self.length)
        for row in range(case.rows):
            at = slice(row * self.length, (row + 1) * self.length)
            self.store.keys[0][:, at] = keys
            self.store.values[0][:, at] = torch.randn(keys.shape)

    def step(self, end: int, new: int, answers: bool) -> Step:
        """The rows `[end - new, end)` of every path."""
        step = step_of(replace(self.case, own=end, new=new))
        begins = np.arange(self.case.rows) * (self.length // PAGE)
        pages = (begins[:, None] + np.arange(-(-end // PAGE))).ravel()
        return replace(step, pages=pages, answers=np.full(self.case.rows, answers))

    def q(self, step: Step) -> Tensor:
        """The queries of a step."""
        return self.queries[torch.from_numpy(step.positions)]

    def dense(self) -> NativeAttention:
        """Attention that reads everything."""
        native = kernels().native
        assert native is not None
        return NativeAttention(self.spec, self.store, native)

    def selected(self, asked: str) -> SelectedAttention:
        """Attention with a selector that has seen the path up to the last chunk."""
        row = registry.find("select", asked.partition(":")[0])
        made = SelectedAttention(self.dense(), [row.load()(row.settings_of(asked), self.spec)], self.spec, self.store)
        last = self.length - (CHUNK if row.rows == "prompts" else GRID // 2)
        for begin in range(0, last, CHUNK):
            end = min(begin + CHUNK, last)
            step = self.step(end, end - begin, False)
            made.prepare(step)
            made._note(0, self.q(step))
        return made


def timed(act: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def kept(bench: Bench, made: SelectedAttention, step: Step) -> tuple[float, float]:
    """The share of dense weights on what some rows read: the mean, and the least of a query head over these rows."""
    q, tiles = bench.q(step), made.paths.tiles
    view = made.selectors[0].pick(0, q, tiles, made)
    assert view is not None
    shape, found = bench.spec.kv_shape(0), []
    for row in np.linspace(0, len(step.positions) - 1, 12).astype(int).tolist():
        n = int(step.positions[row]) + 1
        grouped, keys = q[row].view(shape.n_kv_heads, shape.group_size, -1), bench.store.keys[0][:, :n]
        scores = torch.einsum("hgd,hkd->hgk", grouped, keys)
        weights = (scores * shape.scale).softmax(-1)
        reads = view.reads[view.tile_of[row]].repeat_interleave(GRID, 1)[:, :n].clone()
        reads[:, (n - 1) // GRID * GRID :] = True
        found.append((weights * reads[:, None]).sum(-1).flatten())
    shares = torch.stack(found).mean(0)
    return float(shares.mean()), float(shares.min())


def measure(asked: str, prompt: int, answers: int, repeats: int) -> list[str]:
    """A line of the table."""
    prompts = registry.find("select", asked.partition(":")[0]).rows == "prompts"
    bench = Bench(Case("", 1, 0, prompt) if prompts else Case("", 16, 0, answers))
    made, plain = bench.selected(asked), bench.dense()
    step = bench.step(bench.length, CHUNK, False) if prompts else bench.step(bench.length - GRID // 2 + 1, 1, True)
    plain.prepare(step), made.prepare(step)
    q = bench.q(step)
    pairs = []
    for turn in range(repeats + 1):
        made.notes._found.clear()
        both = [timed(lambda each=each: each.attend(0, q)) for each in (plain, made)]
        pairs += [both] * (turn > 0)  # the first pair warms up
    ratios = sorted(dense / sparse for dense, sparse in pairs)
    picks = timed(lambda: (made.notes._found.clear(), made.selectors[0].pick(0, q, made.paths.tiles, made)))
    middle = [1e3 * statistics.median(column) for column in zip(*pairs, strict=True)]
    mean, least = kept(bench, made, step)
    return [
        asked, f"{bench.case.rows} x {bench.length:,}", *(f"{ms:.0f}" for ms in middle), f"{1e3 * picks:.0f}",
        f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", f"{mean:.1%}", f"{least:.1%}",
    ]  # fmt: skip


def products(repeats: int) -> float:
    """Seconds of the products of a chunk with a layer's weights."""
    sizes, x = ((1024, 4096), (2048, 1024), (1024, 6144), (3072, 1024)), torch.randn(CHUNK, 3072)
    weights = [torch.randn(outputs, inputs) for inputs, outputs in sizes]
    return min(timed(lambda: [x[:, : w.shape[1]] @ w.T for w in weights]) for _ in range(repeats + 1))


def measure_whole(asked: str, prompt: int, repeats: int) -> list[str]:
    """A line of the table of whole prompts, in seconds for a layer."""
    bench = Bench(Case("", 1, 0, prompt))
    made, plain = bench.selected(asked), bench.dense()
    ends, chunks = [prompt * i // 4 for i in range(1, 5)], np.arange(CHUNK, prompt + 1, CHUNK)
    ratios, times = [], []
    for _ in range(repeats):
        points = {plain: [], made: []}
        for end in ends:
            step = bench.step(end, CHUNK, False)
            q = bench.q(step)
            for each, found in points.items():
                each.prepare(step)
                found.append(timed(lambda each=each, q=q: each.attend(0, q)))
        own = len(chunks) * products(repeats)
        sums = [float(np.interp(chunks, [0, *ends], [0, *found]).sum()) for found in points.values()]
        times.append((*sums, own))
        ratios.append((sums[0] / sums[1], (sums[0] + own) / (sums[1] + own)))
    middle = [f"{statistics.median(column):.1f}" for column in zip(*times, strict=True)]
    spread = [f"{statistics.median(c):.2f} ({min(c):.2f} to {max(c):.2f})" for c in zip(*ratios, strict=True)]
    return [asked, f"{prompt:,}", *middle, *spread]


def main() -> None:
    """One line for each selector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("selectors", nargs="*", default=[row.name for row in registry.rows("select")])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=32768)
    parser.add_argument("--answers", type=int, default=16384)
    parser.add_argument("--whole", action="store_true")
    given = parser.parse_args()
    titles = ["selector", "rows", "dense ms", "sparse ms", "of it picking", "ratio", "kept, mean", "kept, least head"]
    if given.whole:
        titles = ["selector", "prompt", "dense s", "sparse s", "products s", "ratio of attention", "ratio of all"]
    print("| " + " | ".join(titles) + " |\n|---|---" + "|---:" * (len(titles) - 2) + "|")
    for asked in given.selectors:
        if given.whole:
            found = measure_whole(asked, given.prompt, given.repeats)
        else:
            found = measure(asked, given.prompt, given.answers, given.repeats)
        print("| " + " | ".join(found) + " |", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
