"""A rank other than the first of a model cut over several devices: loads its shard, computes the steps that it gets."""

from __future__ import annotations

import json
import os
import sys
import threading

import torch.distributed as dist

from umbel.config import EngineConfig
from umbel.engine.build import Model, build_runner, build_store
from umbel.engine.ranks import join
from umbel.errors import UmbelError
from umbel.models.shards import Shard
from umbel.runner.base import run_step
from umbel.runner.wire import Word, decode_step, listen


def main(order: str) -> None:
    """Serve until told to stop; `order` is what `Ranks` wrote."""
    given = json.loads(order)
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    config = EngineConfig(**given["config"])
    shard = Shard(given["rank"], config.tensor_parallel_size)
    join(given["meeting"], shard, config.device)
    model, runner = Model(config, shard), None
    while True:
        try:
            word, data = listen()
        except RuntimeError:  # the first rank is gone
            break
        if word is Word.STOP:
            break
        if word is Word.STORE:
            runner = None  # and its store with it, before there is a second one
            runner = build_runner(model, build_store(model, *json.loads(data)))
        elif runner is not None:
            run_step(runner, decode_step(data))
    dist.destroy_process_group()


def _end_with_the_first() -> None:
    """The pipe ends with the process that holds its other side: so does this one, whatever it computes or waits for."""
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except UmbelError as error:  # which the first rank meets as well, and says
        sys.exit(error.exit_code)
    except Exception as error:
        print(f"umbel: a rank ends: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # its other thread would hold up, or outlive, the end of the interpreter
