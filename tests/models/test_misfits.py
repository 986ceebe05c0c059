"""A tokenizer with a few ids that the model has no embedding for: only rows that use one of them fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend

from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.errors import ModelError
from umbel.ir.params import SamplingParams
from umbel.text.tokenizer import Tokenizer

GREEDY = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)


def add_tokens(directory: Path, *tokens: str) -> Path:
    """Special tokens behind the last id, as fine-tunes add them; gives the directory back."""
    backend = Backend.from_file(str(directory / "tokenizer.json"))
    backend.add_special_tokens(list(tokens))
    backend.save(str(directory / "tokenizer.json"))
    config = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": tokens[0]}))
    return directory


def test_only_rows_that_use_a_token_beyond_the_embedding_fail(tmp_path: Path):
    size = Backend.from_file(str(make_model(tmp_path / "a") / "tokenizer.json")).get_vocab_size()
    directory = add_tokens(make_model(tmp_path / "b", vocab_size=size), "[PAD]", "<unused0>")
    llm = LLM(str(directory), dtype="float32", device="cpu", threads=1)
    good, bad, again = llm.generate(["the dog", "the [PAD] dog", "reads <unused0>"], GREEDY)
    assert good.error is None
    assert len(good.outputs[0].token_ids) == 6
    for row, token_id in ((bad, size), (again, size + 1)):
        assert row.error is not None
        assert str(token_id) in row.error.message


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path):
    tokenizer = Tokenizer.load(add_tokens(make_model(tmp_path), "[PAD]"))
    largest = tokenizer.backend.token_to_id("[PAD]")
    tokenizer.check_fits(largest - 15)
    with pytest.raises(ModelError, match=f"ids go up to {largest}, config.json's vocab_size is {largest - 16}"):
        tokenizer.check_fits(largest - 16)
