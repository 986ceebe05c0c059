"""Which class of transformers computes a type of models, if one does in a way that our KV serves."""

from __future__ import annotations

import transformers
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

from umbel.errors import ModelError

PLAIN_PARTS = ("attn_config", "ffn_config")  # nested configs that are no models


def class_of(model_type: str) -> type[PreTrainedModel]:
    """The class that computes a type of models; raises ModelError for types whose layers keep other things than keys
    and values, or do not ask an attention function for them."""
    if model_type not in CAUSAL:
        why = "has no causal decoder of this type" if model_type in CONFIG_MAPPING else "has no such type"
        raise ModelError(f"transformers {transformers.__version__} {why}")
    name, config_class = CAUSAL[model_type], CONFIG_MAPPING[model_type]
    found = getattr(transformers, name if isinstance(name, str) else name[0])
    if parts := sorted(set(config_class.sub_configs) - set(PLAIN_PARTS)):
        raise ModelError(f"it is more than a decoder of text ({', '.join(parts)})")
    if found._is_stateful:
        raise ModelError("its layers keep a recurrent state, which is not in our KV")
    if getattr(config_class, "is_encoder_decoder", False) is True:
        raise ModelError("it is the decoder of an encoder-decoder")
    if not found._supports_attention_backend:
        raise ModelError("its layers do not go through transformers' attention interface")
    return found
