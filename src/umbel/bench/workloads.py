"""Makes seeded workloads of random token ids, in the shapes that batches of prompts have, and reads and writes them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from umbel.errors import InputError

LENGTH_SEED = 7  # of ragged lengths: the same for every content, so that every round has the same work


@dataclass(frozen=True, slots=True)
class Row:
    """One request.

    `prompt`: token ids.
    `max_tokens`: tokens to generate, always all of them.
    `n`: samples.
    `temperature`: 0 is greedy.
    """

    prompt: Sequence[int]
    max_tokens: int
    n: int = 1
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree of shared beginnings: per level, how many children a node has and how many tokens each of them is."""

    levels: tuple[tuple[int, int], ...]
    out: int
    n: int = 1
    temperature: float = 0.0
    shuffled: bool = False

    def rows(self, draw: random.Random, lengths: random.Random, ids: range) -> list[Row]:
        """The rows, one for every leaf, in depth-first order or shuffled."""
        paths: list[list[int]] = [[]]
        for children, tokens in self.levels:
            paths = [path + draw.choices(ids, k=tokens) for path in paths for _ in range(children)]
        if self.shuffled:
            draw.shuffle(paths)
        return [Row(path, self.out, self.n, self.temperature) for path in paths]


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows that share nothing, of log-normal lengths: (median, sigma, least, most) of prompts and of answers."""

    count: int
    prompt: tuple[int, float, int, int]
    out: tuple[int, float, int, int]

    def rows(self, draw: random.Random, lengths: random.Random, ids: range) -> list[Row]:
        """The rows; their lengths come from `lengths`, their tokens from `draw`."""
        shapes = [(_length(lengths, self.prompt), _length(lengths, self.out)) for _ in range(self.count)]
        return [Row(draw.choices(ids, k=tokens), out) for tokens, out in shapes]


def _length(draw: random.Random, shape: tuple[int, float, int, int]) -> int:
    median, sigma, least, most = shape
    return min(most, max(least, round(draw.lognormvariate(math.log(median), sigma))))


SHAPES: Mapping[str, Tree | Ragged] = MappingProxyType(
    {
        "W1": Tree(((4, 512), (32, 32)), out=4),
        "W2": Tree(((2, 256), (16, 64)), out=64),
        "W3": Ragged(64, prompt=(96, 0.8, 4, 768), out=(32, 0.7, 1, 128)),
        "W4": Tree(((4, 256),), out=48, n=16, temperature=1.0),
        "W5": Tree(((1, 128), (4, 384), (16, 24)), out=16, shuffled=True),
        "L1": Tree(((1, 4096), (64, 32)), out=64),
        "L2": Tree(((4, 2048), (16, 64)), out=64, shuffled=True),
        # Decoding behind one shared prefix of 512 to 8,192 tokens: 64 rows.
        "D512": Tree(((1, 512), (64, 8)), out=64),
        "D1024": Tree(((1, 1024), (64, 8)), out=64),
        "D2048": Tree(((1, 2048), (64, 8)), out=64),
        "D4096": Tree(((1, 4096), (64, 8)), out=64),
        "D8192": Tree(((1, 8192), (64, 8)), out=64),
    }
)


def generate(name: str, seed: int, vocab_size: int) -> list[Row]:
    """The rows of a shape. The seed decides their content (and the order of shuffled ones), never how much work it is.

    Token ids lie below 32,000, so that most vocabularies have them, and above the special ones.
    """
    high = min(32_000, vocab_size)
    ids = range(min(300, high // 4), high)
    return SHAPES[name].rows(random.Random(f"{name}/{seed}"), random.Random(f"{name}/len/{LENGTH_SEED}"), ids)


def own_beginning(rows: Sequence[Row], name: str, seed: int, vocab_size: int, tokens: int = 8) -> list[Row]:
    """The rows after a few tokens that only this seed has, so that a cache of another seed's run is useless."""
    draw = random.Random(f"{name}/{seed}")
    head = draw.choices(range(min(300, vocab_size // 4), min(32_000, vocab_size)), k=tokens)
    return [Row([*head, *row.prompt], row.max_tokens, row.n, row.temperature) for row in rows]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8") as out:
        for i, row in enumerate(rows):
            out.write(json.dumps({"id": i, **asdict(row)}, separators=(",", ":")) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Rows of a workload file: `prompt` (token ids) and `max_tokens`, and `n` and `temperature` where they differ from
    1 and 0. Raises InputError naming the line at fault."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    rows = [_row(path, i, line) for i, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise InputError(f"{path}: holds no rows")
    return rows


def _row(path: Path, number: int, line: str) -> Row:
    try:
        record = json.loads(line)
        prompt = [int(token) for token in record["prompt"]]
        row = Row(prompt, int(record["max_tokens"]), int(record.get("n", 1)), float(record.get("temperature", 0.0)))
    except (ValueError, TypeError, KeyError) as error:
        message = f'{path}, line {number}: give {{"prompt": [token ids], "max_tokens": N}} ({error!r})'
        raise InputError(message) from None
    if not prompt or row.max_tokens < 1 or row.n < 1 or row.temperature < 0:
        raise InputError(f"{path}, line {number}: the prompt is empty, or max_tokens, n or temperature is too low")
    return row
