"""Beginnings that are tokenised once give the ids of whole texts, and nothing is shared where that is not sure."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from tests.tiny_models import CHAT_TEMPLATE, TEXTS, make_model
from umbel.ir.chat import Chat
from umbel.models.families import resolve_model
from umbel.text.files import read_tokenizer
from umbel.text.shared_beginnings import LEAST_CHARS, SharedBeginnings, breaks_of
from umbel.text.tokenizer import Tokenizer

SHARED = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
MARKS = ("<|begin|>", "<|end|>", "<|begin|>user\n", "<|endx|>")
PIECES = (
    " ",
    "  ",
    "\n",
    "\n\n",
    "word",
    " word",
    "é",
    "中文",
    "😀",
    "e\u0301",
    "\u2581",
    "12 345",
    "it's",
    "<|",
    "|>",
    "\t",
)
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
LLAMA3 += r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(*, prefix_space: bool = False, regex: str | None = None, normalizer: object = None) -> Backend:
    """A tokenizer like GPT-2's, Qwen's or Llama 3's."""
    backend = Backend(models.BPE())
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=regex is None)
    split = [] if regex is None else [pre_tokenizers.Split(Regex(regex), "isolated")]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*split, last])
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator([*TEXTS, *PIECES, "word word it's 12 345"], trainer)
    return backend


def metaspace(scheme: str) -> Backend:
    backend = Backend(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    backend.train_from_iterator([*TEXTS, *PIECES], trainer)
    return backend


def marked(backend: Backend, marks: Sequence[str | AddedToken] = MARKS[:2]) -> Backend:
    backend.add_special_tokens(list(marks))
    return backend


ALLOWED: dict[str, Callable[[], Backend]] = {
    "gpt2-like": lambda: marked(byte_level()),
    "llama3-like": lambda: marked(byte_level(regex=LLAMA3)),
    "qwen-like": lambda: marked(byte_level(regex=LLAMA3, normalizer=normalizers.NFC())),
    "metaspace without prefix": lambda: marked(metaspace("never")),
    "marks in marks": lambda: marked(byte_level(), MARKS),
    "strips to the left beside": lambda: marked(byte_level(), [*MARKS[:2], AddedToken("<left>", lstrip=True)]),
    "strips to the right beside": lambda: marked(byte_level(), [*MARKS[:2], AddedToken("<right>", rstrip=True)]),
    "a normalised one beside": lambda: marked(byte_level(), [*MARKS[:2], AddedToken("Word", normalized=True)]),
}


def texts_with(marks: Sequence[str], rng: random.Random, n: int) -> list[str]:
    """Texts of which many begin alike, up to places of all kinds."""
    pieces = [*PIECES, *marks, *marks]
    heads = ["".join(rng.choices(pieces, k=rng.randrange(100, 200))) for _ in range(4)]
    return [
        rng.choice(heads)[: rng.randrange(1, 500)]
        + rng.choice(marks) * rng.randrange(2)
        + "".join(rng.choices(pieces, k=9))
        for _ in range(n)
    ]


def plain(backend: Backend) -> Callable[[Sequence[str]], list[list[int]]]:
    return lambda texts: [e.ids for e in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def check(backend: Backend, marks: Sequence[str]) -> int:
    """Hold beginnings that are shared to plain encoding; returns the characters that were not encoded again."""
    breaks = breaks_of(backend)
    assert breaks is not None
    encoded: list[int] = []

    def counted(texts: Sequence[str]) -> list[list[int]]:
        encoded.append(sum(map(len, texts)))
        return plain(backend)(texts)

    shared, rng, total = SharedBeginnings(breaks, counted), random.Random(7), 0
    for n in (1, 40, 60):
        texts = texts_with(marks, rng, n)
        total += sum(map(len, texts))
        assert shared.encode(texts) == plain(backend)(texts)
    return total - sum(encoded)


@pytest.mark.parametrize("name", ALLOWED)
def test_the_ids_are_those_of_the_whole_text(name: str) -> None:
    marks = (*MARKS, "<left>", "<right>", "Word")
    assert check(ALLOWED[name](), marks) > 1_000


def test_the_demo_models_tokenizer() -> None:
    backend = read_tokenizer(resolve_model("demo")).backend
    assert check(backend, ("<|im_start|>", "<|im_end|>", "<|endoftext|>")) > 1_000


@pytest.mark.skipif(not (SHARED / "gpt2").exists(), reason="needs ../shared/data/tokenizers/gpt2")
def test_gpt2() -> None:
    files = (str(SHARED / "gpt2" / name) for name in ("vocab.json", "merges.txt"))
    backend = Backend(models.BPE.from_file(*files))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert check(marked(backend, ["<|endoftext|>"]), ("<|endoftext|>",)) > 1_000


@pytest.mark.parametrize(
    "backend",
    [
        marked(byte_level(prefix_space=True)),
        marked(metaspace("first")),
        marked(metaspace("always")),
        marked(byte_level(normalizer=normalizers.Prepend("x"))),
        marked(byte_level(normalizer=normalizers.Sequence([normalizers.NFC(), normalizers.Strip()]))),
        marked(byte_level(), [AddedToken("<a>", lstrip=True), AddedToken("<b>", rstrip=True)]),
        marked(byte_level(), [MARKS[0], AddedToken("word", single_word=True)]),
        marked(byte_level(), ["<a><a", "a><a>"]),
        byte_level(),
    ],
)
def test_where_it_is_not_sure_nothing_is_shared(backend: Backend) -> None:
    assert breaks_of(backend) is None


def test_short_beginnings_are_left_alone() -> None:
    backend = marked(byte_level())
    breaks = breaks_of(backend)
    assert breaks is not None
    calls: list[list[str]] = []

    def noted(texts: Sequence[str]) -> list[list[int]]:
        calls.append(list(texts))
        return plain(backend)(texts)

    texts = [f"<|begin|>{'x' * (LEAST_CHARS // 2)}<|end|>{i}" for i in range(5)]
    assert SharedBeginnings(breaks, noted).encode(texts) == plain(backend)(texts)
    assert calls == [texts]


def test_chats_go_this_way_and_a_wrong_guess_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(tmp_path)
    assert "<|im_end|>" in CHAT_TEMPLATE
    system = {"role": "system", "content": "Answer with one word and nothing else. " * 20}
    chats = [[system, {"role": "user", "content": f"Question {i}"}] for i in range(30)]
    tokenizer = Tokenizer.load(tmp_path)
    wanted = [tokenizer.encode([tokenizer.render(chat)], add_special_tokens=False)[0] for chat in chats]
    encoded: list[int] = []

    def noted(self: Tokenizer, texts: Sequence[str], **more: bool) -> list[list[int]]:
        encoded.append(len("".join(texts)))
        return plain(tokenizer.backend)(texts)

    monkeypatch.setattr(Tokenizer, "encode", noted)
    assert tokenizer.encode_chat([Chat(chat) for chat in chats]) == wanted
    assert tokenizer.encode_chat([Chat(chat) for chat in chats]) == wanted
    assert sum(encoded) < 30 * len(tokenizer.render(chats[0]))
    wrong = Tokenizer.load(tmp_path)
    monkeypatch.setattr(SharedBeginnings, "encode", lambda self, texts: [[1]] * len(texts))
    assert wrong.encode_chat([Chat(chat) for chat in chats]) == wanted
    assert wrong.encode_chat([Chat(chat) for chat in chats]) == wanted
