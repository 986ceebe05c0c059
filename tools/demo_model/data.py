"""Packed training sequences as token ids."""

import random

import mix
import numpy as np
from tokenizers import Tokenizer

TASKS = (
    "repeat",
    "copy",
    "add",
    "topic",
    "sentiment",
    "intent",
    "extract",
    "lookup",
    "passage",
    "story",
    "system",
)
END_OF_TEXT, PAD = 0, 3


class Packer:
    """Turns generated documents into arrays of `length` tokens, whole documents only."""

    def __init__(self, tokenizer_file, seed):
        self.tok, self.seed = Tokenizer.from_file(str(tokenizer_file)), seed

    def encode(self, doc):
        """(ids, weights, task numbers) of one document, closed by <|endoftext|>."""
        ids, weights, tasks = [], [], []
        for text, weight, task in doc.segments:
            part = self.tok.encode(text, add_special_tokens=False).ids
            ids += part
            weights += [weight] * len(part)
            tasks += [TASKS.index(task)] * len(part)
        return [*ids, END_OF_TEXT], [*weights, 0.3], tasks + tasks[-1:]

    def sequence(self, rng, length, weights):
        """One packed sequence of length + 1 tokens with weights and tasks."""
        row = ([], [], [])
        while (left := length + 1 - len(row[0])) > 24:
            size = int(left * (rng.uniform(0.75, 0.95) if rng.random() < 0.6 else rng.uniform(0.2, 0.9)))
            for attempt in range(4):
                doc = self.encode(mix.document(rng, int(size * 0.8**attempt), weights))
                if len(doc[0]) <= left:
                    for store, part in zip(row, doc, strict=True):
                        store.extend(part)
                    break
            else:
                break
        fill = length + 1 - len(row[0])
        return row[0] + [PAD] * fill, row[1] + [0.0] * fill, row[2] + [0] * fill

    def batch(self, step, count, length, weights=None):
        """Arrays ids [count, length + 1] int64, weights [count, length] float32, tasks [count, length] int64."""
        rng = random.Random(f"{self.seed}-{step}")
        rows = [self.sequence(rng, length, weights) for _ in range(count)]
        ids, weight, task = (np.array(x) for x in zip(*rows, strict=True))
        return ids, weight[:, 1:].astype(np.float32), task[:, 1:]
