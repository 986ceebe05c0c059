"""Hostile templates: a chat fails by itself, in bounded time and memory, and the next one renders as before."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.hostile import Draw, damaged, texts, values
from tests.fuzz.judge import Fault, survive
from tests.tiny_models import CHAT_TEMPLATE
from umbel.errors import InvalidRequest, UmbelError, UsageError
from umbel.jobs.read.formats.template import Template
from umbel.text.chat_process import TemplateLimits
from umbel.text.chat_template import ChatTemplate

LIMITS = TemplateLimits(seconds=0.5, memory_bytes=128 * 2**20)
GOOD = [{"role": "user", "content": "Hi"}]
TEMPLATES = (
    CHAT_TEMPLATE,
    "{% for m in messages %}{% if loop.last %}{{ m | tojson }}{% continue %}{% endif %}[{{ m.role }}]"
    "{% generation %}{{ m.content | trim }}{% endgeneration %}{% endfor %}",
    "{% set ns = namespace(n=0, t='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% set ns.t = ns.t ~ m.content %}"
    "{{ ns.n }}{{ m.content[:20] }}{% endfor %}{{ ns.t }}",
    "{% macro show(m, depth=1) %}{{ m['content'] ~ '|' * 3 }}{% endmacro %}"
    "{% for m in messages %}{{ show(m) }}{% endfor %}",
)
STATEMENTS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% set x = 'aa' %}{% for a in range(40) %}{% set x = x ~ x %}{% endfor %}",
    "{% set ns = namespace(x='aa') %}{% for a in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x=1) %}{% for a in range(30) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.text = 'a' * 99999999 %}",
    "{{ ('a' * (messages|length * 10**10))|length }}",
    "{{ '%*d' % (messages|length * 10**9, 1) }}",
    "{{ 'a'|center(messages|length * 10**9) }}",
    "{{ (messages|length + 8) ** 9 ** 9 }}",
    "{{ ('9' * 5000)|int }}",
    "{{ messages.__class__ }}",
    "{{ messages|attr('__class__') }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ messages.append(1) }}",
    "{{ messages|sort|join }}",
    "{{ messages|map(attribute='content')|join|upper }}",
    "{{ messages|groupby('role')|list }}",
    "{{ [1, 2]|random }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "{{ raise_exception(messages[0].content) }}",
    "{{ strftime_now(messages[0].content) }}",
    "{{ messages|tojson(indent=99) }}",
    "{{ cycler }}{{ self }}{{ namespace }}{{ range }}{{ dict }}",
    "{{ messages[0].content.encode() }}{{ messages[0].content[::-1] }}",
    "{{ messages[9].content.x }}",
    "{% for key, value in messages[0].items() %}{{ key }}{{ value }}{% endfor %}",
    "{% if messages[0].content is string %}s{% elif messages[0].content is mapping %}m{% endif %}",
    "{{ 1 // 0 }}",
    "{{ " + "not " * 500 + "1 }}",
    "{{ " + "[" * 120 + "]" * 120 + " }}",
    "{% include 'x' %}",
    "{% import 'os' as os %}",
    "{% raw %}{{ x }}{% endraw %}",
)
FRAGMENTS = (
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{% endfor %}",
    "{% for a in messages %}",
    "(",
    "[" * 200,
    "{# ",
    "|",
    "~",
    "**",
)


@st.composite
def chat_template(draw: Draw) -> str:
    """A usual template with hostile statements between its tags; of some, bytes are changed."""
    tags = re.split(r"(?<=[%}]})", draw(st.sampled_from(TEMPLATES)))
    for statement in draw(st.lists(st.sampled_from(STATEMENTS), max_size=2)):
        always = draw(st.booleans())
        guarded = statement if always else "{% if messages|length == 2 %}" + statement + "{% endif %}"
        tags.insert(draw(st.integers(0, len(tags))), guarded)
    if draw(st.integers(0, 4)):
        return "".join(tags)
    tags.insert(draw(st.integers(0, len(tags))), draw(st.sampled_from(FRAGMENTS)))
    return draw(damaged("".join(tags).encode(), 2).map(lambda data: data.decode("utf-8", "replace")))


chats = st.lists(st.fixed_dictionaries({"role": texts, "content": texts | values}), min_size=1, max_size=3)


def check_chat_templates(case: tuple[str, list[dict[str, Any]]]) -> None:
    source, chat = case
    template = ChatTemplate(source, {"bos_token": "<s>"}, datetime(2024, 2, 29), LIMITS)
    before, _, after = (survive(lambda c=c: template.render(c), InvalidRequest) for c in (GOOD, chat, GOOD))
    if repr(before) != repr(after):  # errors too, by their messages
        raise Fault(f"{before!r:.100} before a hostile chat, {after!r:.100} behind it")


def check_prompt_templates(case: tuple[str, dict[str, Any]]) -> None:
    text, item = case
    template = survive(lambda: Template.parse(text), UsageError)
    if not isinstance(template, UmbelError):
        filled = survive(lambda: template.fill(item), InvalidRequest)
        if not isinstance(filled, (str, InvalidRequest)):
            raise Fault(f"the prompt is {filled!r:.100}")


odd = st.one_of(texts, st.text("{}ab!:. ", max_size=12))
READERS = {
    "chat_templates": (st.tuples(chat_template(), chats), check_chat_templates),
    "prompt_templates": (
        st.tuples(odd, st.dictionaries(st.sampled_from(("a", "b", "text")), values)),
        check_prompt_templates,
    ),
}
