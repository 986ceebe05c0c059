"""Which of a model's products an adapter adds to: names and shapes in its file, checked without loading it.

A product of ours stacks several modules of the checkpoint, as queries, keys and values. Their adapters become one: the
inner matrices stand one above another, and each outer one is multiplied by itself with what its own inner one made.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from umbel.config import EngineConfig
from umbel.errors import ModelError, UsageError
from umbel.ir.adapter import Adapter, LowRank
from umbel.ir.architecture import layer_matmuls
from umbel.ir.spec import ModelSpec
from umbel.models.adapters.peft_config import CONFIG_FILE, MAX_RANK, PeftConfig
from umbel.models.adapters.seeded import SCHEME, seeded_adapter
from umbel.models.adapters.soft_prompts import read_soft_prompt, soft_kind
from umbel.models.architectures import FAMILIES
from umbel.models.config_file import naming, shorten
from umbel.models.layout import product_parts
from umbel.models.parts import Part
from umbel.models.safetensors_header import TensorEntry, read_header

WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_OTHERS = {
    "lora_embedding_": "adapters of embeddings are not computed",
    "lora_magnitude_vector": "the magnitudes of DoRA are not computed: merge the adapter into the weights",
}
_NAME = re.compile(r"[^\s=,/\\]{1,128}")


@dataclass(frozen=True, slots=True)
class ModulePair:
    """The two matrices of one module: `part` of a product of ours, whose outputs begin at `begin`."""

    part: Part
    begin: int
    down: TensorEntry
    up: TensorEntry
    scale: float

    @property
    def rank(self) -> int:
        """Rows of the inner matrix."""
        return self.down.shape[0]


def adapted_spec(spec: ModelSpec, config: EngineConfig) -> ModelSpec:
    """The spec with the adapters that were given (EngineConfig.lora). Raises UsageError for names that cannot be, and
    ModelError for adapters that are damaged, of a kind that is not computed, or of another model."""
    found, ranks = dict[str, Adapter](), config.tensor_parallel_size
    if config.lora and ranks > 1:
        raise UsageError(
            f"tensor_parallel_size={ranks}: adapters (lora) are not cut; data_parallel_size takes replicas"
        )
    for each in _asked(config.lora):
        name, _, directory = each.partition("=")
        if not _NAME.fullmatch(name) or not directory:
            raise UsageError(f"lora={each!r}: must be NAME=DIRECTORY, the name without blanks, commas and slashes")
        if name in found:
            raise UsageError(f"lora={each!r}: the name {name} is given twice")
        if directory.startswith(SCHEME):
            _check_named_base(name, directory, spec)
            found[name] = seeded_adapter(name, directory, spec, products_of(spec))
        else:
            found[name] = read_adapter(name, Path(directory).expanduser(), spec)
    return replace(spec, adapters=tuple(found.values()))


def _asked(lora: object) -> list[str]:
    """Adapters as NAME=DIRECTORY, from an object of directories by name, or a list of texts."""
    if isinstance(lora, Mapping):
        return [f"{name}={os.fspath(directory)}" for name, directory in lora.items()]
    if not isinstance(lora, list | tuple) or not all(isinstance(one, str) for one in lora):
        raise UsageError(f"lora={lora!r:.80}: must give a directory for each name, {{'name': 'directory'}}")
    return list(lora)


def _check_named_base(name: str, place: object, spec: ModelSpec) -> None:
    try:
        check_base(spec)
    except ModelError as error:
        raise ModelError(f"adapter {name!r} ({place}): {error}") from None


def read_adapter(name: str, directory: Path, spec: ModelSpec) -> Adapter:
    """The shape of an adapter. Raises ModelError, naming it, for one that cannot be used with this model."""
    try:
        check_base(spec)
        if soft_kind(directory) is not None:
            return read_soft_prompt(name, directory, spec, digest_of(directory))
        pairs = module_pairs(directory, spec)
    except ModelError as error:
        raise ModelError(f"adapter {name!r} ({directory}): {error}") from None
    products = tuple(_low_rank(product, each, _outputs(spec, product)) for product, each in pairs.items())
    ranks = [pair.rank for each in pairs.values() for pair in each]
    return Adapter(name, str(directory), digest_of(directory), (min(ranks), max(ranks)), products)


def _low_rank(product: str, pairs: Sequence[ModulePair], outputs: int) -> LowRank:
    """The shape of what the modules of one product add."""
    outer = sum(math.prod(pair.up.shape) for pair in pairs)
    return LowRank(product, pairs[0].down.shape[1], sum(pair.rank for pair in pairs), outputs, outer)


def check_base(spec: ModelSpec) -> None:
    """Raise ModelError for a model that cannot have adapters."""
    if spec.hosted is not None:
        raise ModelError(f"{spec.family!r} models run through transformers, whose layers take no adapters here")
    if any(layer.latent is not None for layer in spec.layers):
        raise ModelError(f"{spec.family!r} models have latent attention, which takes no adapters here")


def module_pairs(directory: Path, spec: ModelSpec) -> dict[str, list[ModulePair]]:
    """The matrices of an adapter by product of ours. Raises ModelError for what is missing, left over or misshapen."""
    with naming(directory / CONFIG_FILE):
        config = PeftConfig.read(directory)
    family = FAMILIES[spec.family]
    if config.base not in (None, family.architecture):
        raise ModelError(f"it was made for a {shorten(config.base)}, and this is a {family.architecture}")
    left, found = _entries(directory), dict[str, list[ModulePair]]()
    for product, parts in products_of(spec):
        begin = 0
        for part in parts:
            pair = _take(left, part, begin, config)
            if pair is not None:
                found.setdefault(product, []).append(pair)
            begin += part.filled[0]
    for entry in left:
        raise ModelError(f"{_why_left(entry, spec)} ({len(left)} such tensors)")
    if not found:
        raise ModelError(f"{WEIGHTS_FILE} has no matrices")
    return found


def products_of(spec: ModelSpec) -> Iterator[tuple[str, tuple[Part, ...]]]:
    """The products that adapters may add to, with the checkpoint's tensors that they stack."""
    for layer in range(spec.n_layers):
        for m in layer_matmuls(spec, layer):
            if m.name in ("qkv", "o", "gate_up", "up", "down"):
                yield f"layers.{layer}.{m.name}", product_parts(spec, layer, m)


def _outputs(spec: ModelSpec, product: str) -> int:
    _, layer, name = product.split(".")
    return next(m.outputs for m in layer_matmuls(spec, int(layer)) if m.name == name)


def _entries(directory: Path) -> dict[str, TensorEntry]:
    """The tensors of an adapter by their names in the model."""
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        other = " (adapter_model.bin may run code when it is loaded, and is never read)"
        there = other if (directory / "adapter_model.bin").exists() else ""
        raise ModelError(f"no {WEIGHTS_FILE}{there}: PEFT's save_pretrained writes it")
    return {name.removeprefix(_PREFIX): entry for name, entry in read_header(path).items()}


def _take(left: dict[str, TensorEntry], part: Part, begin: int, config: PeftConfig) -> ModulePair | None:
    """The matrices of one module, which are taken out of those that are `left`; None where it has none."""
    module = part.name.removesuffix(".weight")
    down, up = (left.pop(f"{module}.lora_{half}.weight", None) for half in "AB")
    if down is None and up is None:
        if any(module == target or module.endswith(f".{target}") for target in config.targets):
            raise ModelError(f"it has no matrices of {module}, which it names: was it made for a smaller model?")
        return None
    if down is None or up is None:
        raise ModelError(f"it has only one of the two matrices of {module}")
    rank, (outputs, inputs) = config.rank_of(module), part.ours or part.shape
    for entry, shape in ((down, (rank, inputs)), (up, (outputs, rank))):
        if entry.shape != shape:
            raise ModelError(
                f"{shorten(entry.name)} is {list(entry.shape)}, this model makes it {list(shape)} with rank {rank}: "
                "is it of another model?"
            )
        if entry.dtype not in part.dtypes:
            raise ModelError(f"{shorten(entry.name)} is {entry.dtype}; only {', '.join(part.dtypes)} can be read")
    if rank > MAX_RANK:
        raise ModelError(f"{module} has rank {rank}: at most {MAX_RANK}")
    return ModulePair(part, begin, down, up, config.scale_of(module, rank))


def _why_left(name: str, spec: ModelSpec) -> str:
    """Why a tensor of an adapter has no place in a model."""
    for mark, why in _OTHERS.items():
        if mark in name:
            return f"{shorten(name)}: {why}"
    if "lora_" not in name:
        return f"{shorten(name)}: only matrices of low rank are read, no whole tensors"
    if "expert" in name:
        return f"{shorten(name)}: adapters of experts are not computed, those of attention are"
    module = name.partition(".lora_")[0]
    if module.startswith(("lm_head", "embed_out")) or "embed" in module:
        return f"{shorten(name)}: adapters of the embedding or the head are not computed"
    return f"{shorten(module)} is no module of this {spec.family} model of {spec.n_layers} layers that takes an adapter"


def digest_of(directory: Path) -> str:
    """A digest of an adapter's two files."""
    digest = sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        with open(directory / name, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]
