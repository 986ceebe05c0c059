"""The options that several commands share, with their help: how the engine is set up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from umbel.batch.declared import Option
from umbel.config import PAGE_SIZE, EngineConfig

Dtype = Annotated[str, Option(help="{choices}.")]
Device = Annotated[str, Option(help="auto, cpu or cuda.")]
KVTokens = Annotated[int | None, Option(help="Size of the KV pool in tokens; derived if not given.")]
Chunk = Annotated[
    int | None,
    Option("--chunk", "--max-num-batched-tokens", help="Most tokens that one step computes; derived if not given."),
]
PageSize = Annotated[int, Option("--page-size", "--block-size", help="Tokens of a page of the KV pool.", min=1)]
Prefix = Annotated[str, Option(help="Runs shared: {choices}.")]
Admission = Annotated[str, Option(help="When rows start in a tight pool: {choices}.")]
Linear = Annotated[str, Option(help="Products of the layers: {choices}.")]
KVCacheDtype = Annotated[str, Option(help="Keys and values: {choices}; auto is the dtype.")]
AttentionBackend = Annotated[str, Option(help="{choices}.")]
Watchers = Annotated[
    list[str] | None, Option("--watcher", help="Also watch what samples draw by: {choices}; repeatable.")
]
Speculate = Annotated[str, Option(help="Who proposes tokens, for a step to check several: {choices}.")]
_GENERATION = "The model's generation_config.json: auto applies its defaults to rows, vllm and none do not."
Several = Annotated[
    int,
    Option("--data-parallel-size", "-dp", help="Devices, or processes of a CPU, that answer a part each."),
]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Engine: how answers are computed; what is not given follows from the data, the model and the machine.

    Example: --dtype float32 --kv-tokens 200000 --speculate lookup
    """

    dtype: Dtype = "auto"
    device: Device = "auto"
    load_format: Annotated[str, Option(help="auto, safetensors or dummy (seeded random weights).")] = "auto"
    model_impl: Annotated[
        str, Option(help="Who computes the layers: {choices}; auto is native where we know the model.")
    ] = "auto"
    threads: Annotated[int | None, Option(help="CPU threads.")] = None
    kv_tokens: KVTokens = None
    page_size: PageSize = PAGE_SIZE
    chunk: Chunk = None
    prefix: Prefix = "forest"
    admission: Admission = "past-future"
    linear: Linear = "dense"
    kv_cache_dtype: KVCacheDtype = "auto"
    attention_backend: AttentionBackend = "auto"
    tensor_parallel_size: Annotated[
        int, Option("--tensor-parallel-size", "-tp", help="Devices that hold a part of each layer.")
    ] = 1
    data_parallel_size: Several = 1
    executor: Annotated[str, Option(help="Where these run: {choices}; ray takes actors of a cluster.")] = "local"
    ray_address: Annotated[
        str | None, Option("--ray-address", help="The cluster; RAY_ADDRESS, or one of this machine, if not given.")
    ] = None
    mixed_replicas: Annotated[
        bool, Option("--mixed-replicas", help="They may be of several kinds of machines, whose last bits differ.")
    ] = False
    allow_lossy: Annotated[bool, Option("--allow-lossy", help="Answers may change for speed.")] = False
    watchers: Watchers = None
    keep: Annotated[str, Option("--keep-cached", help="Prompts that stay cached: {choices}.")] = "auto"
    speculate: Speculate = "auto"
    generation_config: Annotated[str, Option(help=_GENERATION)] = "auto"
    lora: Annotated[
        list[str] | None,
        Option(
            *("--lora", "--lora-modules"),
            help="An adapter that rows may name, in PEFT's layout; repeatable.",
            metavar="NAME=DIR",
        ),
    ] = None
    technique: Annotated[
        list[str] | None,
        Option(
            "--technique",
            help="What attention reads, or rows keep, of long paths: {choices}; needs --allow-lossy; repeatable.",
            metavar="NAME:SETTING=VALUE",
        ),
    ] = None
    kv_dir: Annotated[
        str | None,
        Option("--kv-dir", help="A folder for the KV of prompts, which later jobs read again.", metavar="DIR"),
    ] = None
    kv_dir_gib: Annotated[float, Option("--kv-dir-gib", help="The most that it may hold, in GiB.")] = 10.0
    skip_pass: Annotated[list[str] | None, Option(help="Leave out a pass of the planner; repeatable.")] = None

    def config(self, model: str, **more: Any) -> EngineConfig:
        """The settings of an engine for a model, with `more` that not all commands take."""
        asked = asdict(self)
        asked |= {"skip": tuple(asked.pop("skip_pass") or ()), "watchers": tuple(self.watchers or ())}
        asked["lora"], asked["technique"] = self.lora or (), tuple(self.technique or ())
        return EngineConfig.of(model, **asked, **more)
