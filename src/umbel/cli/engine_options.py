"""The options that several commands share, with their help: how the engine is set up."""

from __future__ import annotations

from typing import Annotated

from umbel.cli.arguments import Option

Dtype = Annotated[str, Option(help="{choices}.")]
Device = Annotated[str, Option(help="auto, cpu or cuda.")]
Prefix = Annotated[str, Option(help="Runs shared: {choices}.")]
Admission = Annotated[str, Option(help="When rows start in a tight pool: {choices}.")]
Linear = Annotated[str, Option(help="Products of the layers: {choices}.")]
KVCacheDtype = Annotated[str, Option(help="Keys and values: {choices}; auto is the dtype.")]
AttentionBackend = Annotated[str, Option(help="{choices}.")]
TensorParallelSize = Annotated[int, Option(help="Devices that hold a part of each layer.")]
DataParallelSize = Annotated[int, Option(help="Devices, or processes of a CPU, that answer a part each.")]
AllowLossy = Annotated[bool, Option("--allow-lossy", help="Answers may change for speed.")]
Keep = Annotated[str, Option(help="Prompts that stay cached: {choices}.")]
Speculate = Annotated[str, Option(help="Who proposes tokens, for a step to check several: {choices}.")]
Watchers = Annotated[
    list[str] | None, Option("--watcher", help="Also watch what samples draw by: {choices}; repeatable.")
]
SkipPass = Annotated[list[str] | None, Option(help="Leave out a pass of the planner; repeatable.")]
