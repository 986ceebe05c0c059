"""Reads what config.json says of weights in 8 bits, and of 4-bit floats: those that are decoded as they are loaded.

Their tensors say most of it themselves (types, shapes of scales); the `quantization_config` has to be understood all
the same, by allow-list, and has what they do not say. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from umbel.errors import ModelError
from umbel.models.config_file import Config, flag_of, is_int, shorten
from umbel.models.quant_keys import KEY, group_size, is_names, must_be, refuse_unknown

FORMATS: Mapping[str, tuple[str, ...]] = {
    "float-quantized": ("FP8",),
    "int-quantized": ("INT8",),
    "mixed-precision": (),
    "mxfp4-pack-quantized": ("FP4",),
    "mxfp8-quantized": ("FP8",),
    "naive-quantized": ("FP8", "INT8"),
    "nvfp4-pack-quantized": ("FP4",),
    "pack-quantized": ("INT4", "INT8"),
}
"""compressed-tensors' formats, with the types of weights in each; groups of a mixture have formats of their own."""

WEIGHT_KEYS = (
    "actorder block_structure dynamic group_size num_bits observer observer_kwargs scale_dtype strategy symmetric type"
    " zp_dtype"
)
STRATEGIES = ("tensor", "channel", "group", "block", "tensor_group")
LARGEST_BLOCK = 2**16


@dataclass(frozen=True, slots=True)
class CodedFormat:
    """How weights are stored that are decoded as they are loaded.

    `what`: their types, as notes name them. `bits` of a packed number. `block`: rows and columns that share a scale,
    where they do by blocks. `symmetric`: zero points are stored as zeros, if at all. `adds_one`: to zero points, as
    GPTQ's first version has them. `activations`: how those are to be rounded by the file, "" for not at all.
    """

    what: str
    bits: int = 8
    block: tuple[int, int] | None = None
    symmetric: bool = False
    adds_one: bool = False
    activations: str = ""

    @property
    def notes(self) -> list[str]:
        """What the user should know of it."""
        found = [f"weights in {self.what} are dequantised as they are loaded, and take the memory of plain ones"]
        if self.activations:
            found.append(
                f"config.json: {self.activations} are not rounded: answers are closer to the unquantised model's than "
                "those of engines that round them"
            )
        return found


def coded_format(config: Config) -> CodedFormat | None:
    """The format of a config whose weights are decoded, None where they are plain or `int4_config` reads them. Raises
    ModelError for what is not understood."""
    stated = config.get(KEY)
    if not isinstance(stated, dict) or not isinstance(method := stated.get("quant_method"), str):
        return None
    readers: Mapping[str, Callable[[Config], CodedFormat | None]] = {
        "fp8": _fp8, "gptq": _gptq, "compressed-tensors": _compressed
    }  # fmt: skip
    try:
        return readers[method](stated) if method in readers else None
    except ModelError as error:
        raise ModelError(f"{KEY} ({method}): {error}") from None


def _fp8(stated: Config) -> CodedFormat:
    """As DeepSeek-V3 (2412.19437) and Qwen3 publish it, by blocks, and as AutoFP8 and vLLM do, by tensors."""
    refuse_unknown(
        stated,
        "activation_scheme fmt ignored_layers kv_cache_scheme modules_to_not_convert scale_fmt weight_block_size",
    )
    must_be(stated, "fmt", "e4m3", missing="e4m3")
    scheme = stated.get("activation_scheme") or "dynamic"
    if scheme not in ("dynamic", "static"):
        raise ModelError(f"activation_scheme={shorten(scheme)}: must be dynamic or static")
    for key in ("ignored_layers", "modules_to_not_convert"):
        if not is_names(stated.get(key) or []):
            raise ModelError(f"{key}={shorten(stated[key])}: must be a list of names")
    return CodedFormat("FP8", block=_block(stated, "weight_block_size"), activations=_rounded(stated, True))


def _gptq(stated: Config) -> CodedFormat | None:
    if stated.get("bits") != 8:
        return None
    refuse_unknown(
        stated, "bits checkpoint_format desc_act format group_size lm_head modules_in_block_to_quantize pack_dtype sym"
    )
    must_be(stated, "pack_dtype", "int32", missing="int32")
    group_size(stated)
    packing = stated.get("checkpoint_format") or stated.get("format") or "gptq"
    if packing not in ("gptq", "gptq_v2"):
        raise ModelError(f"checkpoint_format={shorten(packing)}: must be gptq or gptq_v2")
    return CodedFormat("INT8", adds_one=packing == "gptq")


def _compressed(stated: Config) -> CodedFormat | None:
    groups = stated.get("config_groups")
    if not isinstance(groups, dict) or not groups or not all(isinstance(group, dict) for group in groups.values()):
        return None
    named = stated.get("format")
    if not isinstance(named, str) or named not in FORMATS or _is_plain_int4(named, groups):
        return None
    refuse_unknown(stated, "config_groups format global_compression_ratio ignore kv_cache_scheme")
    found = [_group(group, named) for group in groups.values()]
    bits, blocks = {form.bits for form in found}, {form.block for form in found}
    if len(bits) > 1 and any((group.get("format") or named) == "pack-quantized" for group in groups.values()):
        raise ModelError(f"config_groups: packed weights of {sorted(bits)} bits in one model cannot be read")
    if len(blocks - {None}) > 1:
        raise ModelError("config_groups: blocks of several sizes in one model cannot be read")
    return CodedFormat(
        " and ".join(sorted({form.what for form in found})),
        found[0].bits,
        next(iter(blocks - {None}), None),
        all(form.symmetric for form in found),
        activations=_rounded(stated, any(form.activations for form in found)),
    )


def _is_plain_int4(named: str, groups: Mapping[str, Any]) -> bool:
    """Whether `int4_config` is to read it, and to say why it cannot."""
    weights = [group.get("weights") for group in groups.values()]
    return named == "pack-quantized" and not any(
        isinstance(each, dict) and (each.get("num_bits") == 8 or each.get("actorder") in ("group", "dynamic", True))
        for each in weights
    )


def _group(group: Config, named: str) -> CodedFormat:
    """What one of `config_groups` says."""
    refuse_unknown(group, "format input_activations output_activations targets weights")
    must_be(group, "output_activations", None)
    if not is_names(group.get("targets")):
        raise ModelError(f"targets={shorten(group.get('targets'))}: must be a list of names")
    own = group.get("format") or named
    if not isinstance(own, str) or own not in FORMATS:
        raise ModelError(f"format={shorten(own)}: must be one of {', '.join(FORMATS)}")
    weights = group.get("weights")
    if not isinstance(weights, dict):
        raise ModelError(f"weights={shorten(weights)}: must be an object")
    refuse_unknown(weights, WEIGHT_KEYS)
    must_be(weights, "dynamic", False, missing=False)
    bits, kind, strategy = weights.get("num_bits", 8), weights.get("type") or "int", weights.get("strategy")
    what = f"{'FP' if kind == 'float' else 'INT' if kind == 'int' else kind}{bits}"
    if what not in FORMATS[own] or not is_int(bits):
        named = " or ".join(FORMATS[own]) or "in a format of their own"
        raise ModelError(f"num_bits={shorten(bits)} of type={shorten(kind)}: weights of {own} must be {named}")
    if strategy is not None and strategy not in STRATEGIES:
        raise ModelError(f"strategy={shorten(strategy)}: must be one of {', '.join(STRATEGIES)}")
    group_size(weights, missing=-1)
    symmetric = weights.get("symmetric") is None or flag_of(weights, "symmetric")
    rounded = "activations" if group.get("input_activations") else ""
    return CodedFormat(what, bits, _block(weights, "block_structure"), symmetric, activations=rounded)


def _block(stated: Config, key: str) -> tuple[int, int] | None:
    value = stated.get(key)
    if value is None:
        return None
    if isinstance(value, str) and value.replace("x", "", 1).isdecimal():  # "128x128", as older files have it
        value = [int(part) for part in value.split("x")]
    if not isinstance(value, list) or len(value) != 2 or not all(is_int(n) and 1 <= n <= LARGEST_BLOCK for n in value):
        raise ModelError(f"{key}={shorten(value)}: must be two whole numbers, rows and columns")
    return value[0], value[1]


def _rounded(stated: Config, activations: bool) -> str:
    """What a file wants rounded besides its weights."""
    named = [what for what, asked in (("activations", activations), ("KV", stated.get("kv_cache_scheme"))) if asked]
    return " and ".join(named)
