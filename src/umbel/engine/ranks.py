"""The processes of a model that is cut over several devices: this one is the first rank, the others wait for steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import weakref
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.spec import ModelSpec
from umbel.models.shards import Shard, shard_spec
from umbel.runner.wire import Word, tell

TIMEOUT = timedelta(days=365)  # a rank waits as long as nothing is asked of it; one that ends is noticed at once


class Ranks:
    """The other ranks, from the time this is made to the time it is dropped or `stop` is called.

    They are processes of this machine that run `umbel.engine.rank`; each loads its shard. Raises UsageError where this
    process is part of a group already.
    """

    def __init__(self, config: EngineConfig, spec: ModelSpec):
        shard_spec(spec, config.tensor_parallel_size)  # refuses what cannot be cut
        if dist.is_initialized():
            raise UsageError("tensor_parallel_size: this process is part of a torch.distributed group already")
        self.count = config.tensor_parallel_size
        meeting = tempfile.mkdtemp(prefix="umbel-ranks-")
        orders = [
            json.dumps({"meeting": meeting, "rank": rank, "config": asdict(config)}) for rank in range(1, self.count)
        ]
        self.others = [subprocess.Popen([sys.executable, "-m", "umbel.engine.rank", order]) for order in orders]
        self.stop = weakref.finalize(self, _stop, self.others, meeting)
        join(meeting, Shard(0, self.count), config.device)

    def make_store(self, n_pages: int, page_size: int) -> None:
        """Have the others make their part of a KV store."""
        tell(Word.STORE, json.dumps([n_pages, page_size]).encode())


def join(meeting: str, shard: Shard, device: str) -> None:
    """Become a rank of the group that meets in a folder."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    kinds = "cpu:gloo,cuda:nccl" if device != "cpu" and torch.cuda.is_available() else "gloo"
    place = f"file://{Path(meeting) / 'store'}"
    dist.init_process_group(kinds, init_method=place, rank=shard.rank, world_size=shard.count, timeout=TIMEOUT)


def _stop(others: list[subprocess.Popen[bytes]], meeting: str) -> None:
    if all(other.poll() is None for other in others):
        with suppress(RuntimeError):  # one ends just now
            tell(Word.STOP)
    for other in others:
        try:
            other.wait(10)
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()
    if dist.is_initialized():
        dist.destroy_process_group()
    for left in Path(meeting).iterdir():
        left.unlink()
    Path(meeting).rmdir()
