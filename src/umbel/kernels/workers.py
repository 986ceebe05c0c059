"""Many jobs on the threads of a processor, each of them on one: how a model is loaded.

Reading, decoding and packing a layer is a row of small steps, most of them torch's or the gguf package's on one thread;
side by side they keep all processors busy, and memory holds as many layers half made as there are threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

T = TypeVar("T")


def in_order(make: Callable[[int], T], count: int, device: torch.device) -> list[T]:
    """`make` of 0 to `count - 1`, in order; on a CPU by several threads. The first error of any is raised."""
    threads = torch.get_num_threads()
    workers = min(threads, count) if device.type == "cpu" else 1
    if workers < 2:
        return [make(i) for i in range(count)]
    pool = ThreadPoolExecutor(workers, "load", partial(torch.set_num_threads, 1))
    try:
        return list(pool.map(make, range(count)))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what threads begin with that are made later
