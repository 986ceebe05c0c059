"""llama.cpp through its C interface, scheduled by hand as well as a skilled user would.

Prompts go in sorted order, as many at a time as sequences and cells allow. Each copies what it shares with the one
before it (its cells are shared, not computed again) and computes the rest, up to 2,048 tokens a call; then all of them
decode together. The last prompt's cells stay for the next wave.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import wire

KV_TYPES = {"f16": 1, "bf16": 30}


def prepare(ask: Any) -> dict[str, Any]:
    """Convert a Hugging Face directory to GGUF, unless that is there or a GGUF file was given."""
    source = Path(ask["model"])
    if source.is_file():
        return {"model": str(source)}
    target = Path(ask["work"]) / f"{source.name}.gguf"
    if not target.exists():
        import gguf_file

        part = target.with_suffix(".part")
        gguf_file.convert(source, part)
        part.rename(target)
    return {"model": str(target)}


class LlamaCppEngine:
    """The engine: one model and one context."""

    def load(self, ask: Any) -> dict[str, Any]:
        """Load a GGUF file; settings: sequences, cells, batch, ubatch, kv."""
        import llama_cpp
        import numpy as np

        self.api, self.np, self.settings = llama_cpp, np, ask["settings"]
        llama_cpp.llama_backend_init()
        self.silent = llama_cpp.llama_log_callback(lambda *_: None)  # kept: C holds only its address
        llama_cpp.llama_log_set(self.silent, None)
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(ask["model"].encode(), options)
        if not self.model:
            raise RuntimeError(f"{ask['model']} could not be loaded")
        self.context = llama_cpp.llama_init_from_model(self.model, self.options(ask))
        if not self.context:
            raise RuntimeError("no context: too many cells for the memory")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.buffer = llama_cpp.llama_batch_init(self.settings["batch"], 0, 1)
        self.pool, self.random = ThreadPoolExecutor(ask["threads"]), np.random.default_rng(0)
        return {"versions": {"llama-cpp-python": llama_cpp.__version__}}

    def options(self, ask: Any) -> Any:
        """The options of the context: one cache for all sequences, flash attention."""
        options = self.api.llama_context_default_params()
        options.n_batch, options.n_ubatch = self.settings["batch"], self.settings["ubatch"]
        options.n_seq_max = options.n_outputs_max = self.settings["sequences"]
        self.cells = max(self.settings["cells"], -(-ask["longest"] // 256) * 256 + 1024)
        options.n_ctx = self.cells
        options.n_threads = options.n_threads_batch = ask["threads"]
        options.flash_attn_type, options.kv_unified = 1, True
        options.type_k = options.type_v = KV_TYPES[self.settings["kv"]]
        return options

    def run(self, ask: Any) -> dict[str, Any]:
        """Run every row, in waves."""
        return wire.run_rows(ask, lambda rows: rows, self.generate)

    def generate(self, rows: list[dict[str, Any]]) -> list[list[list[int]]]:
        """The answers, in the order of the rows."""
        self.api.llama_memory_clear(self.memory, False)
        order = sorted(range(len(rows)), key=lambda i: rows[i]["prompt"])
        answers: list[list[list[int]]] = [[] for _ in rows]
        kept: list[int] = []
        at = 0
        while at < len(order):
            wave = Wave(self, kept)
            while at < len(order) and wave.add(rows[order[at]]):
                at += 1
            for i, samples in zip(order[at - len(wave.rows) : at], wave.run(), strict=True):
                answers[i] = samples
            kept = wave.rows[-1]["prompt"]
        return answers

    def decode(self, items: list[tuple[int, int, int, bool]]) -> Any:
        """Decode a batch of (token, position, sequence, whether its logits are wanted); returns logits `[wanted,
        vocabulary]`."""
        batch = self.buffer
        for i, (token, position, sequence, wanted) in enumerate(items):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
            batch.seq_id[i][0] = sequence
        batch.n_tokens = len(items)
        status = self.api.llama_decode(self.context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode: {status}")
        wanted_rows = sum(item[3] for item in items)
        shape = (wanted_rows, self.vocab)
        return self.np.ctypeslib.as_array(self.api.llama_get_logits(self.context), shape=shape) if wanted_rows else None

    def pick(self, wanted: list[tuple[Any, float]]) -> list[int]:
        """A token for each (logits, temperature)."""
        draws = self.random.random(len(wanted))

        def one(i: int) -> int:
            logits, temperature = wanted[i]
            if temperature <= 0:
                return int(logits.argmax())
            sums = self.np.cumsum(self.np.exp((logits - logits.max()) / temperature))
            return int(self.np.searchsorted(sums, draws[i] * sums[-1]))

        return list(self.pool.map(one, range(len(wanted))))


class Wave:
    """Rows that run together. Sequence 0 keeps the last prompt of the wave before; the others are samples, row by
    row."""

    def __init__(self, engine: LlamaCppEngine, kept: list[int]):
        self.engine, self.kept = engine, kept
        self.rows: list[dict[str, Any]] = []
        self.first: list[int] = []  # sequence of each row's first sample
        self.shared: list[int] = []  # tokens each row has in common with the one before it
        self.sequences, self.cells = 1, len(kept)

    def add(self, row: dict[str, Any]) -> bool:
        """Add a row if there is room; the first always fits, or nothing would."""
        before = self.rows[-1]["prompt"] if self.rows else self.kept
        shared = common(before, row["prompt"])
        cells = len(row["prompt"]) - shared + row["n"] * row["max_tokens"]
        settings = self.engine.settings
        full = self.sequences + row["n"] > settings["sequences"] or self.cells + cells > self.engine.cells
        if full and self.rows:
            return False
        self.rows.append(row)
        self.first.append(self.sequences)
        self.shared.append(shared)
        self.sequences, self.cells = self.sequences + row["n"], self.cells + cells
        return True

    def run(self) -> list[list[list[int]]]:
        """Prefill, then decode until every sample has its tokens."""
        engine = self.engine
        self.samples: list[list[int]] = [[] for _ in range(self.sequences)]
        self.row_of = [0] + [i for i, row in enumerate(self.rows) for _ in range(row["n"])]
        self.waiting: list[tuple[int, int, int, bool]] = []
        self.ending: list[int] = []
        self.stored = {0: len(self.kept)}
        for i in range(len(self.rows)):
            self.prefill(i)
        self.flush()
        self.keep()
        live = [s for s in range(1, self.sequences) if self.missing(s)]
        while live:
            items = [(self.samples[s][-1], self.position(s), s, True) for s in live]
            logits = engine.decode(items)
            wanted = [(row, self.temperature(s)) for row, s in zip(logits, live, strict=True)]
            for s, token in zip(live, engine.pick(wanted), strict=True):
                self.samples[s].append(token)
            for s in [s for s in live if not self.missing(s)]:
                engine.api.llama_memory_seq_rm(engine.memory, s, -1, -1)
            live = [s for s in live if self.missing(s)]
        for s in range(1, self.sequences):
            engine.api.llama_memory_seq_rm(engine.memory, s, -1, -1)
        return [self.samples[s : s + row["n"]] for s, row in zip(self.first, self.rows, strict=True)]

    def prefill(self, i: int) -> None:
        """Share what row i has in common with the row before it, and put the rest into the batch."""
        prompt, sequence = self.rows[i]["prompt"], self.first[i]
        before = self.first[i - 1] if i else 0
        shared = min(self.shared[i], len(prompt) - 1)  # its last token is computed for its logits
        if shared > self.stored.get(before, 0):
            self.flush()
        if shared:
            self.engine.api.llama_memory_seq_cp(self.engine.memory, before, sequence, 0, shared)
        self.stored[sequence] = shared
        for position in range(shared, len(prompt)):
            last = position == len(prompt) - 1
            self.waiting.append((prompt[position], position, sequence, last))
            if last:
                self.ending.append(i)
            if len(self.waiting) == self.engine.settings["batch"]:
                self.flush()

    def flush(self) -> None:
        """Compute the batch; rows that end in it get the first token of every sample."""
        if not self.waiting:
            return
        logits = self.engine.decode(self.waiting)
        for _, position, sequence, _ in self.waiting:
            self.stored[sequence] = position + 1
        wanted, owners = [], []
        for row, i in zip(logits if self.ending else (), self.ending, strict=True):
            first, count = self.first[i], self.rows[i]["n"]
            for s in range(first, first + count):
                if s != first:
                    self.engine.api.llama_memory_seq_cp(self.engine.memory, first, s, -1, -1)
                owners.append(s)
                wanted.append((row, self.rows[i]["temperature"]))
        for s, token in zip(owners, self.engine.pick(wanted), strict=True):
            self.samples[s].append(token)
        self.waiting, self.ending = [], []

    def keep(self) -> None:
        """The last prompt's cells become sequence 0."""
        memory, api = self.engine.memory, self.engine.api
        api.llama_memory_seq_rm(memory, 0, -1, -1)
        api.llama_memory_seq_cp(memory, self.first[-1], 0, 0, len(self.rows[-1]["prompt"]))

    def missing(self, sequence: int) -> bool:
        """Whether a sample wants more tokens."""
        return len(self.samples[sequence]) < self.rows[self.row_of[sequence]]["max_tokens"]

    def position(self, sequence: int) -> int:
        """The position of a sample's newest token."""
        return len(self.rows[self.row_of[sequence]]["prompt"]) + len(self.samples[sequence]) - 1

    def temperature(self, sequence: int) -> float:
        """The temperature of a sample."""
        return float(self.rows[self.row_of[sequence]]["temperature"])


def common(a: list[int], b: list[int]) -> int:
    """Tokens at the beginning of both."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low


if __name__ == "__main__":
    engine = LlamaCppEngine()
    wire.serve({"prepare": prepare, "load": engine.load, "run": engine.run})
