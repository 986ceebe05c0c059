"""Which tensors a checkpoint holds and where: one safetensors file, or the files that an index names.

Nothing is loaded, and nothing here needs torch.
"""

from __future__ import annotations

from pathlib import Path

from umbel.errors import ModelError
from umbel.ir.spec import ModelSpec
from umbel.models.architectures import FAMILIES
from umbel.models.config_file import read_json, shorten
from umbel.models.safetensors_header import MAX_HEADER_BYTES, TensorEntry, read_header

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
BASE_BYTES = 4 * 2**20  # of a header: what writers put into its metadata
TENSOR_BYTES = 512  # most that a header or an index may take for a tensor on average: three times what they do
LAYER_TENSORS, EXPERT_TENSORS = 64, 4  # more than any family has, packed weights counted
BLOCK_BYTES = 8 * 2**20


def stored_tensors(directory: Path, spec: ModelSpec) -> dict[str, TensorEntry]:
    """The tensors of the checkpoint of a model of this shape, by name; every header has been checked."""
    limit = _header_limit(spec)
    if (directory / SINGLE_FILE).is_file():
        return read_header(directory / SINGLE_FILE, limit)
    index = read_json(directory, INDEX_FILE, limit)
    if index is None:
        raise ModelError(_advice_without_safetensors(directory))
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ModelError(f"{directory / INDEX_FILE}: weight_map must give a file for each tensor")
    found: dict[str, TensorEntry] = {}
    for shard in sorted(set(weight_map.values())):
        for name, entry in _shard(directory, shard, limit).items():
            if name in found:
                raise ModelError(f"{directory}: tensor {shorten(name)} is in {found[name].path.name} and in {shard}")
            if weight_map.get(name, shard) != shard:
                stated = weight_map[name]
                raise ModelError(f"{directory}: tensor {shorten(name)} is in {shard}, {INDEX_FILE} has it in {stated}")
            found[name] = entry
    for name, shard in weight_map.items():
        if name not in found:
            raise ModelError(f"{directory}: tensor {shorten(name)} is not in {shard}, where {INDEX_FILE} has it")
    return found


def has_other_head(directory: Path, spec: ModelSpec) -> bool:
    """Whether a checkpoint holds a head that is not its embedding. False where it cannot be read: loading says why."""
    try:
        stored = stored_tensors(directory, spec)
    except ModelError:
        return False
    names = FAMILIES[spec.family].stored
    embed, head = stored.get(f"{names.embed}.weight"), stored.get(f"{names.head}.weight")
    return embed is not None and head is not None and not _are_equal(embed, head)


def lacks_head(directory: Path, spec: ModelSpec) -> bool:
    """Whether a checkpoint holds an embedding and no head. False where it cannot be read: loading says why."""
    try:
        stored = stored_tensors(directory, spec)
    except ModelError:
        return False
    names = FAMILIES[spec.family].stored
    embed = f"{names.embed}.weight"
    return not {embed, embed.removeprefix(names.body)}.isdisjoint(stored) and f"{names.head}.weight" not in stored


def _are_equal(one: TensorEntry, other: TensorEntry) -> bool:
    """Whether two tensors have the same type, shape and bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with one.path.open("rb") as first, other.path.open("rb") as second:
        first.seek(one.file_offset)
        second.seek(other.file_offset)
        for at in range(0, one.end - one.begin, BLOCK_BYTES):
            size = min(BLOCK_BYTES, one.end - one.begin - at)
            if first.read(size) != second.read(size):
                return False
    return True


def _header_limit(spec: ModelSpec) -> int:
    """Most bytes of a header or an index of a model of this shape: parsing takes ten times as much memory."""
    experts = spec.experts.count if spec.experts else 0
    tensors = spec.n_layers * (LAYER_TENSORS + EXPERT_TENSORS * experts)
    return min(BASE_BYTES + TENSOR_BYTES * tensors, MAX_HEADER_BYTES)


def _shard(directory: Path, shard: str, limit: int) -> dict[str, TensorEntry]:
    """The tensors of one file that the index names."""
    path = directory / shard
    if path.name != shard or path.suffix != ".safetensors":
        raise ModelError(
            f"{directory / INDEX_FILE}: shard {shorten(shard)} must be a plain name of a .safetensors file"
        )
    if not path.is_file():
        raise ModelError(f"{directory}: shard {shard} of {INDEX_FILE} is missing: fetch the model again")
    return read_header(path, limit)


def _advice_without_safetensors(directory: Path) -> str:
    files = sorted(p.name for p in directory.iterdir())
    if gguf := [name for name in files if name.endswith(".gguf")]:
        return f"{directory}: no safetensors; for the weights of {gguf[0]} give that file as the model"
    others = [name for name in files if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5"))]
    if not others:
        return f"{directory}: no {SINGLE_FILE} and no {INDEX_FILE}; for random weights use --load-format dummy"
    return (
        f"{directory}: no safetensors, only {', '.join(others[:3])}, which may run code when loaded and is never read. "
        "Convert it: transformers' save_pretrained(dir) writes safetensors"
    )
