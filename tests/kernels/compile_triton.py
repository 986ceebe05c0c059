"""Compiles every Triton kernel for Hopper, down to machine code, which needs no GPU; prints the name of each."""

from __future__ import annotations

from collections.abc import Mapping

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from triton.runtime import JITFunction

from umbel.kernels.triton import experts, forest, fp8, int4, rows, sampling

HOPPER = GPUTarget("cuda", 90, 32)
INTS = {"row", "n_heads", "n_q", "n_k", "width", "n_inputs", "n_outputs", "queries", "n_slots"}
INTS |= {"n_rows", "n_bytes", "n_groups", "group", "part", "n_experts", "n_each"}


def kind_of(name: str, narrow: str, stored: str) -> str:
    """The type of an argument, by its name; keys and values are `stored`."""
    if name.isupper():
        return "constexpr"
    if name in ("scale", "eps", "alpha", "limit"):
        return "fp32"
    if name in ("keys", "values", "rounded"):
        return f"*{stored}"
    if name in INTS or name.endswith("_stride"):
        return "i32"
    return "*" + {
        "items": "i32", "runs": "i32", "merges": "i32", "entries": "i32", "pages": "i32", "positions": "i32",
        "ends": "i64", "places": "i64", "shares": "fp32",
        "slots": "i64", "rows": "i64", "best": "i64", "ids": "i64", "noise": "i64", "temperatures": "fp32",
        "top_k": "i64", "top_p": "fp64", "min_p": "fp64", "bad": "i1",
        "key_worths": "fp32", "value_worths": "fp32", "partial": "fp32", "tops": "fp32", "sinks": "fp32",
        "logits": "fp32", "worths": "fp32",
        "packed": "u8", "zeros": "u8", "scales": "fp16",
    }.get(name, narrow)  # fmt: skip


def build(kernel: JITFunction, narrow: str, stored: str = "", **constants: object) -> None:
    """Compile one kernel for tensors of type `narrow`, keys and values `stored`."""
    signature: Mapping[str, str] = {name: kind_of(name, narrow, stored or narrow) for name in kernel.arg_names}
    assert {name for name, kind in signature.items() if kind == "constexpr"} == set(constants), kernel
    found = compile(ASTSource(kernel, signature, constants), target=HOPPER)
    assert found.asm["cubin"]
    print(kernel.fn.__name__, narrow, *constants.values(), flush=True)


def main() -> None:
    """All of them, attention in the shapes that models have."""
    shapes = ((128, 128, 4, 0, 0.0, False), (80, 80, 7, 100, 20.0, True), (192, 128, 1, 0, 0.0, False))
    for narrow, wide in (("bf16", False), ("fp32", True)):
        for dim, v_dim, group, window, cap, sinks in ((64, 64, 2, 0, 0.0, False),) if wide else shapes:
            shape = {"V_DIM": v_dim, "V_WIDTH": 1 << (v_dim - 1).bit_length(), "GROUP": group, "SINKS": sinks}
            tiles = {"WIDE": 64, "NARROW": 16, "PAGE": 16, "KEYS": 64, "WINDOW": window, "CAP": cap, "FLOAT32": wide}
            width, rest = forest._parts(dim)
            tiles |= {"DIM": dim, "WIDTH": width, "REST": rest, "V_STRIDE": v_dim, "SETS": 1}
            for stored in (narrow, "fp8e4nv")[: 1 if window or wide else 2]:
                build(forest._attend, narrow, stored, **tiles, **shape, SCALED=stored != narrow)
            build(forest._merge, narrow, **shape)
        latents = {"DIM": 576, "WIDTH": 512, "REST": 64, "V_STRIDE": 576, "V_DIM": 512, "V_WIDTH": 512, "GROUP": 16}
        sizes = {"WIDE": 16, "NARROW": 16, "KEYS": 32, "PAGE": 16, "SETS": 8, "WINDOW": 0, "CAP": 0.0, "FLOAT32": wide}
        build(forest._attend, narrow, **latents, **sizes, SCALED=False, SINKS=False)
        build(fp8._round_rows, narrow, "fp8e4nv", WIDTH=4096, BLOCK=4096)
        build(rows._rms_norm, narrow, ADD=True, WIDTH=1000, BLOCK=1024)
        build(rows._gated_silu, narrow, WIDTH=3000, BLOCK=1024)
        build(rows._norm_and_rotate, narrow, "fp8e4nv", NORM=True, HALF=64, BLOCK=64, STORE=False, SCALED=True)
        for stored in (narrow, "fp8e4nv"):
            scaled = {"HALF": 64, "BLOCK": 64, "SCALED": stored != narrow}
            build(rows._norm_and_rotate, narrow, stored, NORM=True, STORE=True, **scaled)
        tiles = {"EXPERTS": 128, "ROWS": 32, "OUTPUTS": 64, "INPUTS": 64}
        build(experts._multiply, narrow, FLOAT32=wide, BIASED=not wide, **tiles)
        build(experts._gated_clamped, narrow, WIDTH=2880, BLOCK=1024)
        build(experts._weighted_sum, narrow, BLOCK=1024)
        for one in (True, False):
            tiles = {"OUTPUTS": 64, "BYTES": 64 if one else 32, "ONE": one}
            build(int4._multiply_int4, narrow, ROWS=16, FLOAT32=wide, **tiles)
            build(int4._widen_int4, narrow, **tiles)
    build(sampling._largest, "fp32", BLOCK=4096)
    for filters in (False, True):
        build(sampling._draw, "fp32", FILTERS=filters, BLOCK=4096)


if __name__ == "__main__":
    main()
