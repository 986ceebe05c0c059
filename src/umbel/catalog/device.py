"""Techniques of the device: products, experts, KV and attention."""

from __future__ import annotations

from umbel.technique import FEATURES, Capability, Technique

DEVICE: tuple[Technique, ...] = (
    Technique(
        "linear",
        "int8",
        False,
        "umbel.linear.int8:Int8Method.of",
        "ZeroQuant, 2206.01861",
        "a CPU and compiled kernels",
    ),
    # Lossy where floats are rounded on loading, and on a CPU, where rows are rounded too; a checkpoint in int4 that is
    # read without asking gives exactly the tokens of its own weights.
    Technique(
        "linear",
        "int4",
        False,
        "umbel.linear.int4:Int4Method.of",
        "QQQ, 2406.09904; GPTQ, 2210.17323; AWQ, 2306.00978",
        "a GPU, or a CPU and compiled kernels",
    ),
    Technique(
        "linear",
        "int4-head8",
        False,
        "umbel.linear.int4_head:Int4HeadMethod.of",
        "QQQ, 2406.09904; ZeroQuant, 2206.01861",
        "a CPU and compiled kernels",
    ),
    Technique(
        "linear",
        "fp8",
        False,
        "umbel.linear.fp8:Fp8Method.of",
        "FP8 Formats, 2209.05433",
        "fast on GPUs with fp8 (Ada, Hopper)",
    ),
    Technique(
        "experts",
        "one-launch",
        True,
        "umbel.linear.experts:GroupedProducts",
        "MegaBlocks, 2211.15841",
        "experts, a GPU and Triton",
        by="machine",
    ),
    Technique(
        "kv", "fp8", False, "umbel.kv.fp8:Fp8Store", "FP8 Formats, 2209.05433", "fast on GPUs with fp8 (Ada, Hopper)"
    ),
    Technique(
        "kv",
        "int8",
        False,
        "umbel.kv.int8:Int8Store",
        "Atom, 2310.19102",
        "fast on a CPU with compiled kernels",
    ),
    # The first that can serve a model is the usual one. The reference is slow, and there for what no other one obeys.
    Technique(
        "attention",
        "triton",
        True,
        "umbel.attention.triton:TritonAttention",
        "Hydragen, 2402.05099",
        "a GPU and Triton",
        can=Capability(("cuda",), features=FEATURES, fp8_kv="with instructions", selects=True, records=True),
    ),
    Technique(
        "attention",
        "native",
        True,
        "umbel.attention.native:NativeAttention.of",
        "Hydragen, 2402.05099",
        "a CPU and compiled kernels",
        by="machine",
        can=Capability(
            ("cpu",), ("float32", "bfloat16"), features=FEATURES, int8_kv=True, selects=True, reproducible="per row"
        ),
    ),
    Technique(
        "attention",
        "torch",
        True,
        "umbel.attention.grid:GridAttention",
        "Hydragen, 2402.05099",
        can=Capability(features=FEATURES, fp8_kv="always", int8_kv=True, reproducible="per row"),
    ),
    Technique(
        "attention",
        "flashinfer",
        True,
        "umbel.attention.flashinfer:FlashInferAttention",
        "FlashInfer, 2501.01005",
        "a GPU and FlashInfer",
        can=Capability(
            ("cuda",),
            ("float16", "bfloat16"),
            (64, 128, 256),
            package=("flashinfer-python", "0.6.11"),
            reproducible="unknown",
        ),
    ),
    Technique(
        "attention",
        "reference",
        True,
        "umbel.attention.reference:ReferenceAttention.of",
        "Attention Is All You Need, 1706.03762",
        by="machine",
        can=Capability(features=FEATURES, fp8_kv="always", int8_kv=True, selects=True, reproducible="per row"),
    ),
)
