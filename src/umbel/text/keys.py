"""Every key that transformers reads from tokenizer_config.json to load a tokenizer, by how it is treated here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from umbel.models.config_file import Config, shorten

_OBEYED = (
    "added_tokens_decoder additional_special_tokens extra_special_tokens model_specific_special_tokens bos_token "
    "eos_token unk_token sep_token pad_token cls_token mask_token chat_template clean_up_tokenization_spaces "
    "split_special_tokens clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
)
OBEYED = frozenset(_OBEYED.split())
NAMED: Mapping[str, str] = MappingProxyType(
    {
        "fix_mistral_regex": "texts are split as tokenizer.json says",
        "chat_control_tokens": "text of a message that looks like a control token is encoded as one",
        "post_processor": "tokenizer.json alone says what is put around a text",
        "tokenizer_object": "tokenizer.json is read",
        "vocab": "tokenizer.json is read",
        "merges": "tokenizer.json is read",
    }
)
"""Keys that are not applied though transformers may: what holds instead."""
_WITHOUT_EFFECT = (
    "add_bos_token add_eos_token add_prefix_space backend cache_dir commit_hash files_loaded from_slow gguf_file "
    "init_inputs is_local legacy local_files_only max_len max_length max_model_length model_input_names "
    "model_max_length name_or_path pad_to_multiple_of pad_token_type_id padding_side processor_class "
    "response_schema response_template stride tokenizer_class tokenizer_file tokenizer_padding "
    "tokenizer_truncation token truncation_side truncation_strategy unk_id verbose vocab_file merges_file "
    "do_lower_case spaces_between_special_tokens errors sp_model_kwargs strip_accents tokenize_chinese_chars "
    "use_default_system_prompt added_tokens_file special_tokens_map_file tokenizer_config_file "
    "chat_template_file _json_truncation _json_padding _spm_precompiled_charsmap subfolder tokenizer "
    "use_source_tokenizer"
)
WITHOUT_EFFECT = frozenset(_WITHOUT_EFFECT.split())
"""Keys that change no ids and no texts where there is a tokenizer.json, as in transformers."""
SAYS_NOTHING: tuple[object, ...] = (None, False, "", [], {})


def key_notes(config: Config) -> tuple[str, ...]:
    """Texts for the user: which settings of a tokenizer_config.json are not applied."""
    found = [(key, config[key], instead) for key, instead in NAMED.items() if config.get(key) not in SAYS_NOTHING]
    return tuple(f"tokenizer_config.json: {key}={shorten(value)} is not applied: {text}" for key, value, text in found)
