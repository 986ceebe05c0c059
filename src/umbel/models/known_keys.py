"""What becomes of each key that transformers knows in config.json and generation_config.json: data, and nothing else.

A key of config.json that stands in no other list than `NAMED`, or in none, is named in a note (`models/notes.py`).
docs/model_keys.md is made from these lists, and a test compares them with the installed transformers.
"""

from __future__ import annotations

from collections.abc import Mapping

OBEYED = frozenset((
    "architectures", "bos_token_id", "dtype", "eos_token_id", "head_dim", "hidden_act", "hidden_size",
    "intermediate_size", "layer_types", "max_position_embeddings", "model_type", "num_attention_heads",
    "num_hidden_layers", "num_key_value_heads", "original_max_position_embeddings", "partial_rotary_factor",
    "quantization_config",
    "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta", "tie_word_embeddings", "torch_dtype", "vocab_size",
))  # fmt: skip
"""Keys of config.json that are read in every family, obeyed in the values that we support and refused in others. What
only some families read stands in their rows (`models/architectures/`)."""

REFUSED: Mapping[str, tuple[object, ...]] = {
    "auto_map": (None, {}, ""),
    "compression_config": (None, {}),
    "custom_pipelines": (None, {}),
    "is_causal": (None, True),
    "is_encoder_decoder": (None, False),
    "kv_sharing_modes": (None, {}, []),
    "per_layer_config": (None, {}),
    "quantization": (None, {}),
    "transformers_weights": (None, ""),
    "trust_remote_code": (None, False),
}
"""Keys of config.json that would change answers in a way that we do not compute, with the values that say nothing."""

WITHOUT_EFFECT = frozenset((
    "_attn_implementation", "_attn_implementation_internal", "_commit_hash", "_experts_implementation",
    "_sliding_window_pattern",
    "_experts_implementation_internal", "_name_or_path", "allow_global_per_layer_attribute_access",
    "attention_dropout", "attn_implementation", "attn_pdrop", "classifier_dropout", "dropout", "embd_pdrop",
    "embedding_dropout", "eod_token_id", "hidden_dropout", "init_std", "layerdrop", "resid_pdrop", "residual_dropout",
    "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
    "reorder_and_upcast_attn",
    "chunk_size_feed_forward", "decoder_start_token_id", "experts_implementation", "finetuning_task",
    "gradient_checkpointing", "id2label", "initializer_range", "is_decoder", "label2id", "mamba_chunk_size",
    "name_or_path", "num_labels",
    "output_attentions", "output_hidden_states", "output_router_logits", "pad_token_id", "prefix", "pretraining_tp",
    "problem_type", "return_dict", "router_aux_loss_coef", "sep_token_id",
    "serialize_explicit_per_layer_config",
    "task_specific_params", "tie_last_hidden_states", "tokenizer_class", "torchscript", "transformers_version",
    "unsloth_fixed", "unsloth_version", "use_bfloat16", "use_cache",
))  # fmt: skip
"""Keys of config.json that change no answer of a causal decoder: training, other heads, how others compute."""

WITHOUT_EFFECT_IN: Mapping[str, frozenset[str]] = {
    "deepseek_v2": frozenset(("qk_head_dim",)),
    "deepseek_v3": frozenset(("num_mtp_layers", "num_nextn_predict_layers", "qk_head_dim")),
    "glm4_moe": frozenset(("num_mtp_layers", "num_nextn_predict_layers")),
    "minimax_m2": frozenset(("router_jitter_noise",)),
    "mixtral": frozenset(("router_jitter_noise",)),
    "phimoe": frozenset(("input_jitter_noise",)),
    "qwen3_moe": frozenset(("max_window_layers",)),
}
"""Those that have none in a family although its published files hold them."""

OF_VECTORS = frozenset(
    (
        "is_matryoshka",
        "matryoshka_dimensions",
        "sbert_ce_default_activation_function",
        "sentence_transformers",
    )
)
"""Keys of config.json that say what vectors become, as `id2label`, `num_labels` and `problem_type` do for classes."""

NAMED = frozenset(("attention_chunk_size",))
"""Keys of config.json that change answers in other families; transformers passes over them in ours, or nearly so."""

_ROPE = frozenset(("partial_rotary_factor", "rope_theta", "rope_type", "type"))
_ORIGINAL = "original_max_position_embeddings"
ROPE_KEYS: Mapping[str, frozenset[str]] = {
    "default": _ROPE,
    "linear": _ROPE | {"factor"},
    "dynamic": _ROPE | {"alpha", "factor"},
    "llama3": _ROPE | {"factor", "high_freq_factor", "low_freq_factor", _ORIGINAL},
    "yarn": _ROPE | {
        "attention_factor", "beta_fast", "beta_slow", "factor", "llama_4_scaling_beta", "mscale", "mscale_all_dim",
        "truncate", _ORIGINAL,
    },
    "longrope": _ROPE | {
        "attention_factor", "factor", "long_factor", "long_mscale", "short_factor", "short_mscale", _ORIGINAL,
    },
}  # fmt: skip
"""Kinds of rotary positions, with the keys that each reads. Other kinds are refused."""

ROPE_KEYS_OF_SOME = frozenset(("alpha", "llama_4_scaling_beta", "long_mscale", "short_mscale"))
"""Those of them that only families read in whose rows they stand."""

ROPE_KEYS_NAMED = frozenset(("mrope_section",))
"""Keys of the refused kinds. Beside one of ours they are named in a note, as unknown ones are."""

GENERATION_OBEYED = frozenset(("eos_token_id",))
"""Keys of generation_config.json that are read."""

GENERATION_APPLIED: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}
"""Those that are defaults of rows which do not say it, as in vLLM, with the names of rows. They are in the lists below
too, as the file may be left out."""

NAMED_GREEDY: Mapping[str, tuple[object, ...]] = {
    "bad_words_ids": (None, []),
    "begin_suppress_tokens": (None, []),
    "constraints": (None,),
    "dola_layers": (None,),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "exponential_decay_length_penalty": (None,),
    "force_words_ids": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None, []),
    "guidance_scale": (None, 1.0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "no_repeat_ngram_size": (None, 0),
    "num_beams": (None, 1),
    "penalty_alpha": (None, 0),
    "repetition_penalty": (None, 1.0),
    "sequence_bias": (None, {}, []),
    "stop_strings": (None, [], ""),
    "suppress_tokens": (None, []),
    "token_healing": (None, False),
    "watermarking_config": (None, {}),
}
"""Keys of generation_config.json that change greedy answers of transformers, with the values that do not."""

NAMED_SAMPLING: Mapping[str, tuple[object, ...]] = {
    "do_sample": (None, True),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "min_p": (None, 0.0),
    "temperature": (None, 1.0),
    "top_h": (None, 1.0),
    "top_k": (None, 0, -1),
    "top_p": (None, 1.0),
    "typical_p": (None, 1.0),
}
"""Those that change what rows are sampled from which set no such field of their own."""

NAMED_LENGTH: Mapping[str, tuple[object, ...]] = {
    "max_length": (None,),
    "max_new_tokens": (None,),
    "max_time": (None,),
    "num_return_sequences": (None, 1),
}
"""Those that change how much is generated for rows that do not say it. A `max_length` beyond the context does not."""

GENERATION_WITHOUT_EFFECT = frozenset((
    "_from_model_config", "assistant_confidence_threshold", "assistant_early_exit", "assistant_ensemble_weight",
    "assistant_lookbehind", "bos_token_id", "cache_config", "cache_implementation", "compile_config",
    "continuous_batching_config", "decoder_start_token_id", "disable_compile", "diversity_penalty", "early_stopping",
    "is_assistant", "length_penalty", "low_memory", "max_cache_len", "max_matching_ngram_size", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "num_beam_groups", "output_attentions", "output_hidden_states", "output_logits",
    "output_scores", "pad_token_id", "prefill_chunk_size", "prompt_lookup_num_tokens", "remove_invalid_values",
    "renormalize_logits", "return_dict_in_generate", "speculation_type", "target_lookbehind", "transformers_version",
    "use_cache", "use_mtp",
))  # fmt: skip
"""Those that say how transformers computes or returns an answer, or only modify beams, which are named themselves."""
