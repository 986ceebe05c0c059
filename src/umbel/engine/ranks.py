"""The processes of a model that is cut over several devices: this one is the first rank, the others wait for steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from umbel.config import EngineConfig
from umbel.errors import UmbelError, UsageError
from umbel.ir.spec import ModelSpec
from umbel.models.shards import Shard, shard_spec
from umbel.runner.wire import Word, tell

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")  # variables that say where ranks listen
NOTICE_SECONDS = 5.0  # in which a rank that has broken a connection is seen to have ended
TIMEOUT = timedelta(days=365)  # a rank waits as long as nothing is asked of it; one that ends is noticed at once


class Ranks:
    """The other ranks, from the time this is made to the time it is dropped or `stop` is called.

    They are processes of this machine that run `umbel.engine.rank_process`; each loads its shard. Raises UsageError
    where this process is part of a group already.
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
        commands = [[sys.executable, "-m", "umbel.engine.rank_process", order] for order in orders]
        # In a session of their own, as Ctrl-C is for the job; they end when their pipe does, so not after this process.
        self.others = [subprocess.Popen(c, stdin=subprocess.PIPE, start_new_session=True) for c in commands]
        self.stop = weakref.finalize(self, _stop, self.others, meeting)
        self._wait_for_others(Path(meeting))
        join(meeting, Shard(0, self.count), config.device)

    def make_store(self, n_pages: int, page_size: int) -> None:
        """Have the others make their part of a KV store."""
        with self.named():
            tell(Word.STORE, json.dumps([n_pages, page_size]).encode())

    @contextmanager
    def named(self) -> Iterator[None]:
        """What fails in here because another rank has ended is an UmbelError that names it."""
        try:
            yield
        except RuntimeError as error:
            until = time.monotonic() + NOTICE_SECONDS
            while not (ended := self._ended()) and time.monotonic() < until:
                time.sleep(0.01)
            if not ended:
                raise
            raise UmbelError(f"{ended}; what is finished is kept: run the same command again") from error

    def _wait_for_others(self, meeting: Path) -> None:
        """Wait until all others are about to join, as joining cannot notice that one of them has ended."""
        while not all((meeting / f"rank-{rank}").exists() for rank in range(1, self.count)):
            if ended := self._ended():
                self.stop()
                raise UmbelError(f"{ended} before it had started")
            time.sleep(0.01)

    def _ended(self) -> str:
        """The first of the others that does not run any more, and how it ended; "" while all run."""
        for rank, other in enumerate(self.others, 1):
            code = other.poll()
            if code is not None:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                return f"tensor-parallel rank {rank} of {self.count} ended with {how}"
        return ""


def join(meeting: str, shard: Shard, device: str) -> None:
    """Become a rank of the group that meets in a folder, and that cannot be reached from other machines."""
    kinds = "cpu:gloo,cuda:nccl" if device != "cpu" and torch.cuda.is_available() else "gloo"
    place = f"file://{Path(meeting) / 'store'}"
    (Path(meeting) / f"rank-{shard.rank}").touch()
    with _loopback():
        dist.init_process_group(kinds, init_method=place, rank=shard.rank, world_size=shard.count, timeout=TIMEOUT)


@contextmanager
def _loopback() -> Iterator[None]:
    """Make the group listen on the loopback interface alone, whatever the environment says: ranks trust every peer that
    connects."""
    before = {name: os.environ.get(name) for name in INTERFACES}
    os.environ |= dict.fromkeys(INTERFACES, "lo0" if sys.platform == "darwin" else "lo")
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


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
        if other.stdin is not None:
            other.stdin.close()
    if dist.is_initialized():
        dist.destroy_process_group()
    for left in Path(meeting).iterdir():
        left.unlink()
    Path(meeting).rmdir()
