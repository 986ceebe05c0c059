"""Options of other engines' command lines that are not taken here, each with what there is instead."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_DERIVED = "rows start when the memory they will need is there, and a step takes as many as it has room for"
_POOL = "the KV pool is what the plan derives of the free memory; --kv-tokens sets its size"
_CONTEXT = "the context is the model's own, and costs nothing while it is unused; --max-tokens limits answers"
_PENALTY = "penalties are not applied yet; a row that asks for one is refused by name"
_NO_CODE = "code that comes with a model is never run"
_SHARED = "prompts that begin alike are always computed once; --prefix none turns it off"
_FILE_SAYS = "the input says it: each OpenAI batch line has its url"
_WEIGHTS = "read from the model's config.json; --linear chooses what products are made in"
_HUB = "give a directory, or a hub id: the Hugging Face cache (HF_HOME) is read"

FOREIGN: Mapping[str, str] = MappingProxyType(
    {
        "--max-num-seqs": f"{_DERIVED}; --kv-tokens sets the memory, --chunk the tokens of a step",
        "--max-running-requests": f"{_DERIVED}; --kv-tokens sets the memory, --chunk the tokens of a step",
        "--max-concurrency": f"{_DERIVED}",
        "--batch-size": f"{_DERIVED}; --chunk is the most tokens that a step computes",
        "--gpu-memory-utilization": _POOL,
        "--mem-fraction-static": _POOL,
        "--kv-cache-memory-bytes": "--kv-tokens sets the size of the KV pool in tokens",
        "--num-gpu-blocks-override": "--kv-tokens sets the size of the KV pool in tokens",
        "--swap-space": "rows that step back are computed again, with the same result; nothing is swapped",
        "--cpu-offload-gb": "weights stay on the device",
        "--max-model-len": _CONTEXT,
        "--context-length": _CONTEXT,
        "--enable-prefix-caching": _SHARED,
        "--no-enable-prefix-caching": "--prefix none turns sharing off",
        "--enable-chunked-prefill": "prompts are always computed in chunks; --chunk is the most tokens of a step",
        "--long-prefill-token-threshold": "prompts are always computed in chunks; --chunk is the most tokens of a step",
        "--schedule-policy": "--admission says when rows start; the plan orders them",
        "--scheduling-policy": "--admission says when rows start; the plan orders them",
        "--enforce-eager": "answers do not depend on it, so there is no switch",
        "--compilation-config": "answers do not depend on it, so there is no switch",
        "--speculative-config": "--speculate names who proposes tokens",
        "--speculative-model": "--speculate names who proposes tokens",
        "--num-speculative-tokens": "how many tokens are proposed follows from their price; --speculate names who does",
        "--quantization": _WEIGHTS,
        "--trust-remote-code": _NO_CODE,
        "--tokenizer": "the tokenizer is the model's own",
        "--tokenizer-mode": "the tokenizer is the model's own",
        "--skip-tokenizer-init": "rows of token ids need no tokenizer, and then none is loaded",
        "--revision": _HUB,
        "--download-dir": _HUB,
        "--hf-token": _HUB,
        "--hf-overrides": "the model is what its config.json says: change a copy of it",
        "--chat-template": "the template is the model's own: change a copy of its directory",
        "--pipeline-parallel-size": "--tensor-parallel-size cuts each layer; --data-parallel-size takes replicas",
        "--enable-lora": "adapters are not supported yet: merge them into the weights",
        "--lora-modules": "adapters are not supported yet: merge them into the weights",
        "--presence-penalty": _PENALTY,
        "--frequency-penalty": _PENALTY,
        "--repetition-penalty": _PENALTY,
        "--best-of": "--n gives so many answers a row",
        "--top-logprobs": "--logprobs K gives the K most likely tokens of each place",
        "--echo": "--prompt-logprobs K scores the prompt; OpenAI completions may have echo in their body",
        "--response-format": "structured answers are not supported yet; --choices gives each row one of some labels",
        "--guided-json": "structured answers are not supported yet; --choices gives each row one of some labels",
        "--guided-choice": "--choices a,b,c gives each row the most likely of some labels",
        "--completion-window": "--deadline 2h stops in time; the same command goes on later",
        "--endpoint": _FILE_SAYS,
        "--url": _FILE_SAYS,
        "--port": "umbel has no server: umbel run takes a file",
        "--host": "umbel has no server: umbel run takes a file",
        "--disable-log-requests": "-q shows warnings and errors only",
        "--disable-log-stats": "-q shows warnings and errors only",
        "--use-tqdm": "progress is shown by itself; -q turns it off",
        "--disable-tqdm": "progress is shown by itself; -q turns it off",
        "--checkpoint": "finished rows are kept in OUTPUT.umbel as they come: the same command continues",
        "--continue": "the same command continues an earlier run by itself",
        "--restart": "the same command continues an earlier run by itself; see --help for what forgets one",
        "--force": "the same command continues an earlier run by itself; see --help for what forgets one",
        "--limit": "there is no limit of rows: head -n writes a shorter file",
    }
)
