"""Writes docs/tokenizer_keys.md from the lists of known keys: `python -m tests.text.keys_doc`."""

from __future__ import annotations

from pathlib import Path

from umbel.text import keys as tokenizer_keys

DOC = Path(__file__).parents[2] / "docs" / "tokenizer_keys.md"
HEAD = """# What becomes of a key of tokenizer_config.json

Made from `src/umbel/text/keys.py` by `python -m tests.text.keys_doc`; a test compares the lists with what the
installed transformers reads, and another one this page with the lists. Tests are those of
`tests/text/test_keys.py`.

*Obeyed*: as transformers' PreTrainedTokenizerFast does beside a tokenizer.json. *Named*: not applied; a note says so in
`umbel plan`, in `umbel run` and in the summary. *Refused*: the model is not run. *No effect*: changes no ids and no
texts, as in transformers. Other keys are not read by transformers either.

Special tokens are taken from tokenizer.json and from the obeyed keys (every `..._token` too, which chat templates see
by its name); where there is no `added_tokens_decoder`, also from special_tokens_map.json, whose values come first, and
from added_tokens.json. Classes of transformers 5 that split otherwise than tokenizer.json says (`LlamaTokenizer` and
others, chosen by `tokenizer_class`) do not count: models were trained on what the file says.

| key | what becomes of it | test |
|---|---|---|
"""
TESTS = {"clean_up": "test_cleaning_up_is_that_of_transformers", "chat_template": "test_chats_equal_transformers"}


def document() -> str:
    """The whole page."""
    rows = [(key, "obeyed", _obeyed_test(key)) for key in tokenizer_keys.OBEYED]
    rows += [
        ("..._token", "obeyed", _obeyed_test("..._token")),
        ("auto_map", "refused", "test_configuration_that_names_code"),
    ]
    rows += [(key, f"named: {instead}", "test_named") for key, instead in tokenizer_keys.NAMED.items()]
    rows += [(key, "no effect", "test_without_effect") for key in tokenizer_keys.WITHOUT_EFFECT]
    return HEAD + "".join(f"| `{key}` | {what} | `{test}` |\n" for key, what, test in sorted(rows))


def _obeyed_test(key: str) -> str:
    named = (test for start, test in TESTS.items() if key.startswith(start))
    return next(named, "test_declared_tokens_are_those_of_transformers")


if __name__ == "__main__":
    DOC.write_text(document(), encoding="utf-8")
