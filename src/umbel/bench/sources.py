"""Finds what `--workloads` names: a shape with a seed, a task built from files, or a file of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from umbel.bench.tasks import TASKS
from umbel.bench.workloads import SHAPES, Row, generate, own_beginning, read_rows
from umbel.errors import UsageError, nearest
from umbel.text.tokenizer import Tokenizer

SETS = {"W": ("W1", "W2", "W3", "W4", "W5"), "L": ("L1", "L2", "L3")}


@dataclass(frozen=True, slots=True)
class SeededWorkload:
    """A workload that can be made for any seed; `rows(seed)` have other content but the same shape for each."""

    name: str
    rows: Callable[[int], list[Row]]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where workloads come from: the model's vocabulary, the folder of the task files, and a tokenizer for them."""

    vocab_size: int
    data: Path | None
    tokenizer: Path

    def cases(self, text: str) -> list[SeededWorkload]:
        """The workloads of a list, separated by commas; W and L stand for all of theirs; NAME@64 is the first 64 rows
        of NAME."""
        names = [name for part in text.split(",") for name in SETS.get(part.strip(), (part.strip(),)) if name]
        return [self.case(name) for name in dict.fromkeys(names)]

    def case(self, name: str) -> SeededWorkload:
        """The workload of that name. Raises UsageError for a name that is neither known nor a file, InputError for a
        bad file."""
        base, _, limit = name.partition("@")
        if limit and (not limit.isdigit() or limit == "0"):
            raise UsageError(f"--workloads {name}: after the @ stands a number of rows")
        most = int(limit) if limit else None
        if base in SHAPES:
            return SeededWorkload(name, lambda seed: generate(base, seed, self.vocab_size)[:most])
        if base in TASKS:
            label, found = name, self._task(base)[:most]
        elif Path(base).is_file():
            label, found = Path(base).stem + name[len(base) :], read_rows(Path(base))[:most]
        else:
            known = (*SHAPES, *TASKS)
            raise UsageError(f"--workloads {name}: is not a file, nor one of {', '.join(known)}{nearest(base, known)}")
        self._check(label, found)
        return SeededWorkload(label, lambda seed: own_beginning(found, label, seed, self.vocab_size))

    def _task(self, name: str) -> list[Row]:
        if self.data is None:
            raise UsageError(f"--workloads {name}: is built from files; give their folder with --data")
        folder = self.data / "tasks" if (self.data / "tasks").is_dir() else self.data
        return TASKS[name](folder, encoder(self.tokenizer))

    def _check(self, name: str, rows: Sequence[Row]) -> None:
        highest = max(max(row.prompt) for row in rows)
        if highest >= self.vocab_size:
            raise UsageError(
                f"--workloads {name}: token {highest} is not in the model's vocabulary of {self.vocab_size:,}; "
                "give a tokenizer that fits with --tokenizer"
            )


def encoder(folder: Path) -> Callable[[Sequence[str]], Sequence[Sequence[int]]]:
    """A function from texts to token ids, by a folder's tokenizer.json, or by vocab.json and merges.txt (byte-level
    BPE)."""
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.load(folder).encode
    parts = [folder / "vocab.json", folder / "merges.txt"]
    if not all(part.is_file() for part in parts):
        raise UsageError(f"--tokenizer {folder}: holds no tokenizer.json, nor vocab.json with merges.txt")
    from tokenizers.implementations import ByteLevelBPETokenizer

    found = ByteLevelBPETokenizer(*map(str, parts))
    return lambda texts: [encoding.ids for encoding in found.encode_batch(list(texts))]


def longest(rows: Sequence[Row]) -> int:
    """Tokens of the longest row, its answer included."""
    return max(len(row.prompt) + row.max_tokens for row in rows)
