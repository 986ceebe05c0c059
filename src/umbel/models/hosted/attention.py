"""The attention function that transformers calls in every layer: keys and values go to our store, ours attends."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import AttentionInterface

from umbel.attention.base import AttentionBackend
from umbel.errors import ModelError

NAME = "umbel"
SEAT = "umbel_seat"


class Seat:
    """Where the layers of one module find the attention of the step that is being computed."""

    def __init__(self) -> None:
        self.backend: AttentionBackend | None = None

    def give_to(self, module: nn.Module) -> None:
        """Let every layer of `module` find it."""
        for layer in module.modules():
            if hasattr(layer, "layer_idx"):
                setattr(layer, SEAT, self)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of packed rows: `query` `[1, n_heads, rows, key_dim]`, `key` and `value` `[1, n_kv_heads, rows, ...]`,
    `s_aux` the sinks of a layer (`[n_heads]`), if it has some; gives `[1, rows, n_heads, value_dim]`. What else is
    passed was compared with the layer's KVShape before the model was loaded (probe.py)."""
    backend = getattr(module, SEAT).backend
    if backend is None or attention_mask is not None:
        raise ModelError(f"{type(module).__name__}: called outside a step, or with a mask of its own")
    layer = module.layer_idx
    backend.place(layer).write(key[0].transpose(0, 1), value[0].transpose(0, 1))
    queries = query[0].transpose(0, 1).contiguous()
    sinks = None if s_aux is None else s_aux.float()
    return backend.attend(layer, queries, sinks=sinks).unsqueeze(0), None


def register() -> None:
    """Make the function known to transformers. No mask belongs to it: the forest says what a row sees."""
    AttentionInterface.register(NAME, attend)
