"""Chat templates: the same text as transformers, whatever they ask for within limits, one row's fault its own."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import threading
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.parameters import by_night
from tests.tiny_models import CHAT_TEMPLATE, make_model, write_tokenizer
from umbel.engine.build import load_tokenizer
from umbel.errors import InvalidRequest
from umbel.ir.chat import Chat
from umbel.ir.prompts import check_messages
from umbel.models.families import read_spec
from umbel.text.chat_process import TemplateLimits
from umbel.text.chat_template import ChatTemplate
from umbel.text.tokenizer import Tokenizer

NOW = datetime(2024, 2, 29)
SMALL = TemplateLimits(seconds=0.3, memory_bytes=96 * 2**20, output_chars=10**6)


def chat(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def template(source: str, limits: TemplateLimits = SMALL) -> ChatTemplate:
    return ChatTemplate(source, {"bos_token": "<s>"}, NOW, limits)


def chats(texts: Iterable[str]) -> list[Chat]:
    return [Chat(chat(text)) for text in texts]


def shown(found: list[str | InvalidRequest]) -> list[str]:
    return [text if isinstance(text, str) else text.code for text in found]


# Each asks for much in one row only: the one whose text is "much".
GREEDY = {
    "repeats a text": "{{ 'a' * big }}",
    "repeats a list": "{{ [1] * big }}",
    "repeats in two steps": "{% set a = 'a' * mid %}{% set b = a * mid %}{{ b|length }}",
    "pads by the percent sign": "{{ '%*d' % (big, 1) }}",
    "pads by a format": "{{ ('{:>' ~ big ~ '}').format(1) }}",
    "pads by a filter of formats": "{{ ('%' ~ big ~ 's')|format('x') }}",
    "centers": "{{ 'a'|center(big) }}",
    "justifies": "{{ 'a'.ljust(big) }}",
    "fills with zeros": "{{ 'a'.zfill(big) }}",
    "indents": "{{ ('a\n' * mid)|indent(mid) }}",
    "expands tabs": "{{ ('\t' * mid).expandtabs(mid) }}",
    "replaces": "{{ ('a' * mid).replace('a', 'b' * mid) }}",
    "joins": "{{ range(mid)|join('b' * mid) }}",
    "doubles in tuples": "{% set ns = namespace(t='aa') %}{% for i in range(99) %}{% set a, b = ns.t ~ ns.t, 1 %}"
    "{% set ns.t = a %}{% endfor %}",
    "doubles in a namespace": "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}",
    "doubles by plus": "{% set ns = namespace(x=[]) %}{% for i in range(99) %}{% set ns.x = ns.x + [i] + ns.x %}"
    "{% endfor %}",
    "holds itself": "{% set ns = namespace() %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
    "{{ ns.x }}",
    "doubles by blocks": "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}"
    "{% endset %}{% endfor %}",
    "a power of powers": "{{ (9 * one) ** (9 ** 9) }}",
    "a power that is printed": "{{ (9 ** mid) ** 9 }}",
    "sorts": "{% for i in range(mid) %}{{ range(mid)|sort|length }}{% endfor %}",
    "groups": "{% for i in range(mid) %}{{ range(mid)|groupby('real')|length }}{% endfor %}",
    "loops": "{% for a in range(mid) %}{% for b in range(mid) %}{% endfor %}{% endfor %}",
    "makes batches": "{{ [1]|batch(big, 'x')|list|length }}",
    "makes slices": "{{ [1]|slice(big, 'x')|list|length }}",
    "calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "writes much": "{% for i in range(mid) %}{{ 'a' * mid }}{% endfor %}",
    "wraps": "{% for i in range(99) %}{{ ('a ' * mid)|wordwrap(1) }}{% endfor %}",
    "prints as JSON": "{{ ([('a' * mid)] * mid)|tojson(indent=mid) }}",
    "sums": "{{ ([[1]] * mid)|sum(start=[])|length }}",
}
FEW = ["repeats a text", "pads by a filter of formats", "holds itself", "a power of powers", "loops", "writes much"]


@pytest.mark.parametrize("names", by_night([FEW], [list(GREEDY)]))
def test_rows_that_take_too_much_fail_alone(names: list[str]) -> None:
    # Numbers that come from the row, as Jinja computes constants when it reads the template.
    source = "{% set one = messages|length %}{% set big, mid = one * 10**9, one * 99999 %}"
    source += "{% set name = messages[0].content %}"
    source += "".join(f"{{% if name == {name!r} %}}{much}{{% endif %}}" for name, much in GREEDY.items()) + "{{ name }}"
    texts = [text for i, name in enumerate(names) for text in (str(i), name)]
    found = template(source).render_all(chats(texts))
    assert found[::2] == texts[::2]
    why = {name: str(error) for name, error in zip(names, found[1::2], strict=True)}
    named = (
        "more than 0.3 seconds",
        "more than 96 MiB of memory",
        "characters",
        "OverflowError",
        "ValueError",
        "RecursionError",
    )
    assert [name for name, message in why.items() if not any(part in message for part in named)] == []


def test_this_process_takes_neither_the_memory_nor_the_time() -> None:
    source = "{% if messages[0].content %}{{ 'a' * 10**10 }}{% endif %}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidRequest, match="96 MiB of memory"):
        template(source).render(chat("much"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_a_prompt_is_not_many_times_as_long_as_its_conversation() -> None:
    found = template("{{ messages[0].content * 65 }}", TemplateLimits()).render_all(chats(["a", "a" * 10**6]))
    assert found[0] == "a" * 65
    assert "65,000,000 characters" in str(found[1])
    source = "{% if messages[0].content == 'b' %}{{ 'a' * 300000 }}{% endif %}"
    assert shown(template(source).render_all(chats("bc"))) == ["invalid_messages", ""]


@pytest.mark.parametrize(("source", "named"), [
    ("{{ 'a' * 10**10 }}", "memory"),
    ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "seconds"),
    ("{{ messages.__class__.__mro__ }}", "internal '__(class|mro)__'"),
    ("{% if false %}{{ ''['__class__'] }}{% endif %}", "internal '__class__'"),
    ("{{ messages|attr('__class__') }}", "internal '__class__'"),
    ("{{ messages|map(attribute='__class__')|list }}", "internal '__class__'"),
    ("{{ '{0.__class__.__mro__}'.format(messages) }}", "SecurityError"),
    ("{{ messages.append(1) }}", "SecurityError"),
    ("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "SecurityError"),
    ("{% for", "TemplateSyntaxError"),
    ("{{ [1, 2]|random }}", "random"),
    ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError|seconds|memory"),
    ("{{ " + "not " * 50000 + "1 }}", "RecursionError|seconds|memory|SIGSEGV"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    ("a" * (2**20 + 1), "1,048,577 characters"),
])  # fmt: skip
def test_a_template_that_is_refused_fails_every_chat_by_name(source: str, named: str) -> None:
    for error in template(source).render_all(chats("ab")):
        assert isinstance(error, InvalidRequest)
        assert error.code == "invalid_chat_template"
        assert error.param == "messages"
        with pytest.raises(InvalidRequest, match=named):
            raise error


def test_refused_templates_leave_plain_prompts_alone(tmp_path: Path) -> None:
    make_model(tmp_path)
    write_tokenizer(tmp_path, "{{ messages.__class__ }}")
    tokenizer = load_tokenizer(tmp_path, read_spec(tmp_path))
    assert tokenizer is not None
    assert tokenizer.encode(["plain"])[0]
    (error,) = tokenizer.encode_chat(chats("x"))
    assert isinstance(error, InvalidRequest)


def test_a_row_does_not_pay_for_what_rows_before_it_left_behind() -> None:
    # Cycles of namespaces stay until Python collects them, so each row leaves half of the memory taken.
    leak = "{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.x = 'a' * (30000000 // messages|length) %}"
    leak += "{{ messages[0].content }}"
    texts = [str(i) for i in range(12)]
    limits = TemplateLimits(memory_bytes=SMALL.memory_bytes)
    assert template(leak, limits).render_all(chats(texts)) == texts


def test_many_chats_come_back_in_order_whatever_ends_the_process() -> None:
    source = "{% if 'much' in messages[0].content %}{{ 'a' * 10**10 }}{% endif %}{{ messages[0].content }}"
    texts = [f"{i} much" if i in (0, 7, 8, 299, 700) else str(i) for i in range(701)]
    wanted = ["invalid_messages" if "much" in text else text for text in texts]
    assert shown(template(source).render_all(chats(texts))) == wanted


def test_a_process_that_was_killed_is_replaced() -> None:
    found = template(CHAT_TEMPLATE)
    first = found.render(chat("x"))
    os.kill(found._process._process.pid, signal.SIGKILL)
    assert found.render(chat("x")) == first


def test_an_interrupted_rendering_does_not_answer_the_next_one() -> None:
    found = template("{% for i in range(messages[0].content|length) %}{% endfor %}{{ messages[0].content }}")
    found.render(chat("x"))

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    process = found._process._process
    os.kill(process.pid, signal.SIGSTOP)  # it cannot answer before it is interrupted
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Stop):
            found.render(chat("first"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert found.render(chat("second")) == "second"


def test_threads_get_their_own_answers() -> None:
    found, wrong = template("{{ messages[0].content }}"), []

    def ask(name: str) -> None:
        texts = [f"{name}{i}" for i in range(300)]
        wrong.extend([] if found.render_all(chats(texts)) == texts else [name])

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_its_process_ends_with_the_template_and_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    found = template(CHAT_TEMPLATE)
    found.render(chat("x"))
    pid = found._process._process.pid
    if Path("/proc/self/environ").exists():
        assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    del found
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_json_cannot_hold_is_the_rows_own_fault() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    odd = [{"role": "user", "content": "a", "extra": deep}]
    kept = [{"role": "user", "content": "\ud800", "extra": object()}]
    asked = [Chat(messages) for messages in (chat("a"), odd, kept, chat("b"))]
    found = template("{{ messages[0].content }}{{ messages[0].extra }}").render_all(asked)
    assert shown(found) == ["a", "invalid_messages", "\ud800<object>", "b"]


def test_texts_of_any_characters_come_through() -> None:
    texts = ["", "\n", "a\r\nb\u2028c\x00\x85", "\U0001f468\u200d\U0001f469 é", '"{}', "a" * 3_000_000]
    found = template("{{ messages[0].content }}", TemplateLimits()).render_all(chats(texts))
    assert found == texts


# Content parts. What a template does with them decides in which form it gets them.

TEXT = "{% for m in messages %}[{{ m.role }}]{{ m['content'] | trim }}{% endfor %}"
PARTS = "{% for m in messages %}[{{ m.role }}]{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}"
BOTH = (
    "{% macro show(content) %}{% if content is string %}{{ content }}{% else %}{% for part in content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endmacro %}"
    "{% if messages[0].role == 'system' %}{{ show(messages[0].content) }}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ show(m.content) }}{% endfor %}"
)
NEEDS_SYSTEM = "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}" + BOTH


def parts(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]


@pytest.mark.parametrize(("source", "of_parts"), [
    (TEXT, "[user]one\ntwo"),
    (TEXT + "{{ messages|tojson|length > 0 }}", "[user]one\ntwoTrue"),
    (PARTS, "[user]onetwo"),
    (BOTH, "[user]onetwo"),
])  # fmt: skip
def test_parts_come_in_the_form_that_the_template_shows(source: str, of_parts: str) -> None:
    found = template(source)
    assert found.render(check_messages(parts("one", "two"))) == of_parts
    assert "[user]text" in found.render(check_messages(chat("text")))  # never nothing in silence


def test_a_template_that_refuses_our_first_conversation_shows_parts_in_the_second() -> None:
    system = [{"role": "system", "content": "S"}]
    assert template(NEEDS_SYSTEM).render([*system, *parts("one", "two")]) == "S[user]onetwo"


def test_what_a_template_says_of_half_a_surrogate_pair_can_be_written() -> None:
    with pytest.raises(InvalidRequest) as caught:
        template("{{ raise_exception(messages[0].content) }}").render(chat("a\ud800b"))
    assert str(caught.value) == "the chat template failed: a\\ud800b" and str(caught.value).encode()


@pytest.mark.parametrize("source", [PARTS, BOTH])
@pytest.mark.parametrize("texts", [["one"], ["first", "second"]])
def test_parts_equal_transformers(source: str, texts: list[str], tmp_path: Path) -> None:
    write_tokenizer(tmp_path, source)
    expected = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "system", "content": [{"type": "text", "text": "S"}]}, *parts(*texts)]
    wanted = expected.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert Tokenizer.load(tmp_path).render(check_messages(messages)) == wanted


def test_underscores_of_honest_templates_equal_transformers(tmp_path: Path) -> None:
    source = "{{ ['a', 'b']|join('__') }}{{ messages[0].content|replace('__NAME__', 'x') }}{{ '__X__' }}"
    write_tokenizer(tmp_path, source)
    expected = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path)
    wanted = expected.apply_chat_template(chat("__NAME__"), tokenize=False)
    assert Tokenizer.load(tmp_path).render(chat("__NAME__")) == wanted == "a__bx__X__"


# Where a template lies, and what is said when there is none.


def configured(directory: Path, chat_template: Any) -> Tokenizer:
    write_tokenizer(directory)
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": chat_template}))
    return Tokenizer.load(directory)


@pytest.mark.parametrize("given", [
    "text",
    {"default": "text"},
    {"tool_use": "tools", "default": "text"},
    [{"name": "default", "template": "text"}],
    [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "text"}],
])  # fmt: skip
def test_the_default_template_is_found_as_by_transformers(given: Any, tmp_path: Path) -> None:
    tokenizer = configured(tmp_path, given)
    expected = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path)
    wanted = expected.apply_chat_template(chat("x"), tokenize=False, add_generation_prompt=True)
    assert tokenizer.render(chat("x")) == wanted == "text"


@pytest.mark.parametrize(("given", "named"), [
    ({"tool_use": "x", "rag": "y"}, "named .*rag.*, .*tool_use.*, and none named"),
    ([{"name": "rag", "template": "y"}], "and none named"),
    (None, "no chat template"),
    (7, "neither a text nor texts by name"),
    ({"default": 7}, "neither a text"),
])  # fmt: skip
def test_a_chat_without_a_usable_template_says_why(given: Any, named: str, tmp_path: Path) -> None:
    (error,) = configured(tmp_path, given).encode_chat(chats("x"))
    assert isinstance(error, InvalidRequest)
    assert error.code == "missing_chat_template"
    with pytest.raises(InvalidRequest, match=named):
        raise error


@pytest.mark.parametrize("names", [["default"], ["default", "rag"], ["rag"]])
def test_templates_in_files_of_their_own(names: list[str], tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    folder = tmp_path / "additional_chat_templates"
    folder.mkdir()
    for name in names:
        (folder / f"{name}.jinja").write_text(f"file {name}")
    expected = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path)
    (found,) = Tokenizer.load(tmp_path).render_all(chats("x"))
    if "default" in names:
        assert found == expected.apply_chat_template(chat("x"), tokenize=False) == "file default"
    else:
        assert isinstance(found, InvalidRequest)
        with pytest.raises(ValueError, match="no default"):
            expected.apply_chat_template(chat("x"), tokenize=False)
