"""Texts of answers behind their prompts and of single tokens, against transformers' decoding of prompt and answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.tiny_models import write_tokenizer
from tests.tiny_tokenizers import write_sentencepiece_like, write_wordpiece
from umbel.text.detokenizer import AnswerStream, TextStream
from umbel.text.tokenizer import Tokenizer

KINDS = ("byte-level", "metaspace", "byte-fallback", "unigram", "unigram, cleaned", "wordpiece")
IDS = st.lists(st.integers(0, 2**16), max_size=24)


class Pair:
    """A tokenizer, and transformers' own for the same files."""

    def __init__(self, directory: Path):
        self.own = Tokenizer.load(directory)
        transformers = pytest.importorskip("transformers")
        self.other: Any = transformers.PreTrainedTokenizerFast.from_pretrained(directory)
        self.letter = next(i for i in range(self.own.vocab_size) if self.text([i], skip=True).isalpha())

    def ids(self, numbers: Sequence[int]) -> list[int]:
        """Numbers as ids; every second one of the tokens that stand first in the vocabulary, bytes among them."""
        return [n // 2 % self.own.vocab_size if n % 2 else n // 2 % min(270, self.own.vocab_size) for n in numbers]

    def text(self, ids: Sequence[int], *, skip: bool) -> str:
        found: str = self.other.decode(list(ids), skip_special_tokens=skip)
        return found


def write(directory: Path, kind: str) -> None:
    if kind == "byte-level":
        write_tokenizer(directory)
    elif kind == "wordpiece":
        write_wordpiece(directory)
    else:
        write_sentencepiece_like(directory, kind.partition(",")[0])
    if kind.endswith("cleaned"):
        path = directory / "tokenizer_config.json"
        path.write_text(path.read_text().replace("{", '{"clean_up_tokenization_spaces": true, ', 1))


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    directory = tmp_path_factory.mktemp("tokenizer")
    write(directory, request.param)
    return Pair(directory)


def both_ways(own: Tokenizer, prompt: list[int], answer: list[int], *, skip: bool) -> tuple[str, str]:
    """An answer's text at once and as it streams."""
    context = own.decoder.context_of(prompt, skip_special_tokens=skip)
    (whole,) = own.decoder.decode_answers([answer], [context], skip_special_tokens=skip)
    stream = TextStream(own, skip_special_tokens=skip, context=context)
    return whole, "".join([*(stream.push([i]) for i in answer), stream.finish()])


@settings(max_examples=200)
@given(IDS, IDS, st.booleans())
def test_an_answer_reads_as_it_does_behind_its_prompt(pair: Pair, first: list[int], then: list[int], skip: bool):
    prompt, answer = pair.ids(first), pair.ids(then)
    beginning, whole = pair.text(prompt, skip=skip), pair.text(prompt + answer, skip=skip)
    behind = [pair.text([pair.letter, *ids], skip=skip) for ids in (prompt, prompt + answer)]
    # The prompt ends in a whole character, and the answer's bytes leave it as it is. A letter in front shows this for a
    # prompt of one blank byte, too: transformers drops a blank that stands first, whatever becomes of it.
    assume(whole.startswith(beginning) and behind[1].startswith(behind[0]) and not beginning.endswith("\ufffd"))
    at_once, streamed = both_ways(pair.own, prompt, answer, skip=skip)
    assert at_once == whole[len(beginning) :]
    assert streamed == at_once


@settings(max_examples=200)
@given(IDS, IDS, st.booleans())
def test_no_text_of_a_prompt_is_in_an_answer(pair: Pair, first: list[int], then: list[int], skip: bool):
    """Also where the prompt ends in half a character: an answer has what its own ids give, and perhaps one blank."""
    prompt, answer = pair.ids(first), pair.ids(then)
    at_once, streamed = both_ways(pair.own, prompt, answer, skip=skip)
    alone = pair.text(answer, skip=skip)
    assert at_once == streamed
    assert at_once.replace(" ", "") == alone.replace(" ", "") or alone.startswith("##")


@settings(max_examples=150)
@given(IDS, IDS, st.data())
def test_a_stop_ends_the_answer_at_the_token_that_completes_it(
    pair: Pair, first: list[int], then: list[int], data: st.DataObject
):
    """The row ends with the fewest tokens whose text holds the stop: bytes and what may be cleaned up are no excuse."""
    prompt, answer = pair.ids(first), pair.ids(then)
    context = pair.own.decoder.context_of(prompt)
    texts = [pair.own.decoder.decode_answers([answer[:k]], [context])[0] for k in range(len(answer) + 1)]
    plain = [(k, i) for k, text in enumerate(texts) for i, c in enumerate(text) if c != "\ufffd"]
    assume(plain)
    k, at = data.draw(st.sampled_from(plain))
    stop = texts[k][at : at + data.draw(st.integers(1, 4))].split("\ufffd")[0]
    count = next(k for k, text in enumerate(texts) if stop in text)
    stream = AnswerStream(pair.own, [stop], context=context)
    text = "".join([*(stream.push([i]) for i in answer), stream.finish()])
    assert (stream.n_tokens, stream.stop) == (count, stop)
    assert text == texts[count][: texts[count].index(stop)]


@settings(max_examples=200)
@given(IDS, IDS, st.integers(0, 12), st.sampled_from([" ", "e", "t", "\n", "A", " t", "zz"]))
def test_stops_that_are_complete_before_min_tokens_do_not_count(
    pair: Pair, first: list[int], then: list[int], least: int, stop: str
):
    prompt, answer = pair.ids(first), pair.ids(then)
    context = pair.own.decoder.context_of(prompt)
    stream = AnswerStream(pair.own, [stop], min_tokens=least, context=context)
    text = "".join([*(stream.push([i]) for i in answer), stream.finish()])
    assert stream.n_tokens >= min(least, len(answer))
    if stream.stop is None:
        assert text == pair.own.decoder.decode_answers([answer], [context])[0]
    if least == 0:
        assert stop not in text


def test_an_empty_prompt_text_leaves_the_first_blank_out(pair: Pair):
    """A text that nothing stands in front of has no blank there; special tokens are no text where they do not show."""
    own = pair.own
    blanks = [i for i in range(own.vocab_size) if (own.token_text(i) or "").startswith("\u2581t")]
    special = min(own.special_ids)
    for i in blanks:
        shown = own.decoder.decode_answers([[i]], [own.decoder.context_of([special])])[0]
        assert shown == own.decode([i]) and not shown.startswith(" ")
        assert own.decoder.decode_answers([[i]], [own.decoder.context_of([i, special])])[0].startswith(" t")
        context = own.decoder.context_of([special], skip_special_tokens=False)
        assert own.decoder.decode_answers([[i]], [context], skip_special_tokens=False)[0].startswith(" t")


def test_bytes_of_tokens_join_to_the_text(pair: Pair):
    """For every token after every other one of a few: the bytes by which the text grows."""
    own = pair.own
    plain = [i for i in range(own.vocab_size) if i not in own.decoder.byte_ids]
    ahead = plain[3:40:6] if not own.decoder.cleans_up else plain[30:31]
    for before in ahead:
        for i in plain:
            start, whole = own.decode([before], skip_special_tokens=False), own.decoder.decode_raw([before, i])
            if own.decoder.cleans_up or "\ufffd" in start + whole:
                continue
            assert own.token_bytes([i])[0] == whole[len(start) :].encode(), (before, i)


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback"])
def test_parts_of_characters_have_bytes_of_their_own(kind: str, tmp_path: Path):
    write(tmp_path, kind)
    own = Tokenizer.load(tmp_path)
    text = "q\u00e9\u4e2d\U0001f600q"
    ids = own.encode([text], add_special_tokens=False)[0]
    assert len(ids) >= 10 and b"".join(own.token_bytes(ids)).decode().lstrip() == text
    assert own.token_bytes([2**20]) == [b""]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_that_is_a_special_token_ends_the_answer_there(kind: str, tmp_path: Path):
    write(tmp_path, kind)
    own = Tokenizer.load(tmp_path)
    stop, special = max(own.decoder.special_texts.items())
    plain = own.encode(["report report"], add_special_tokens=False)[0]
    context = own.decoder.context_of(plain)
    text = own.decoder.decode_answers([plain], [context])[0]
    for include, shown in ((False, text), (True, text + stop)):
        stream = AnswerStream(own, ["zz", stop], include_stop=include, context=context)
        assert stream.push([*plain, special, *plain]) + stream.finish() == shown
        assert (stream.stop, stream.n_tokens) == (stop, len(plain) + 1)
    late = AnswerStream(own, [stop], min_tokens=len(plain) + 1, context=context)
    late.push([*plain, special, *plain, special])
    assert late.n_tokens == 2 * len(plain) + 2
