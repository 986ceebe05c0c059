"""Writes tiny tokenizers of the kinds that models have beside byte-level BPE: SentencePiece-like ones and WordPiece."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.tiny_models import TEXTS


def write_sentencepiece_like(directory: Path, kind: str) -> None:
    """A Llama-2-like tokenizer: blank marks, and with "byte-fallback" single bytes for unknown characters."""
    has_bytes = kind == "byte-fallback"
    backend = Backend(
        models.Unigram() if kind == "unigram" else models.BPE(fuse_unk=True, byte_fallback=has_bytes, unk_token="<unk>")
    )
    steps = [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if kind == "byte-fallback":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        backend.decoder = decoders.Sequence([steps[0], decoders.ByteFallback(), *steps[1:]])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
    bytes_first = [f"<0x{byte:02X}>" for byte in range(256)] if has_bytes else []
    make = trainers.UnigramTrainer if kind == "unigram" else trainers.BpeTrainer
    unknown = {"unk_token": "<unk>"} if kind == "unigram" else {}
    special = ["<unk>", "<s>", "</s>"]
    trainer = make(
        vocab_size=120 + len(bytes_first), special_tokens=special + bytes_first, show_progress=False, **unknown
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    content = json.loads(backend.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special]
    (directory / "tokenizer.json").write_text(json.dumps(content))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "add_bos_token": True,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def write_wordpiece(directory: Path) -> None:
    """A BERT-like tokenizer: words and `##` pieces, texts cleaned up."""
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    alphabet = list(" .?!,'ntmsver")
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([*TEXTS, "don't you've we're it's I'm he ' s , . ? !"] * 3, trainer)
    backend.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    config |= {"eos_token": "[SEP]", "clean_up_tokenization_spaces": True}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
