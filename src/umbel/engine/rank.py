"""A rank behind the first of a model that is cut over several devices: loads its shard, computes what it is told."""

from __future__ import annotations

import json
import sys

import torch.distributed as dist

from umbel.config import EngineConfig
from umbel.engine.build import Model, build_runner, build_store
from umbel.engine.ranks import join
from umbel.models.shards import Shard
from umbel.runner.wire import Word, decode_step, listen


def main(order: str) -> None:
    """Serve until told to stop; `order` is what `Ranks` wrote."""
    given = json.loads(order)
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
            runner.run(decode_step(data))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
