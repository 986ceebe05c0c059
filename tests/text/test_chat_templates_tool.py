"""The tool that holds chat templates to transformers says what is equal, what is refused, and what differs."""

from __future__ import annotations

from collections import Counter

from tools.chat_templates import compared, conversations, verdict

from umbel.errors import InvalidRequest

NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}[/]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_conversations_are_equal_or_refused_by_both() -> None:
    asked = list(conversations(9))
    systems = sum(messages[0]["role"] == "system" for messages, _ in asked)
    assert compared(NO_SYSTEM, asked) == Counter({"equal": 9 - systems, "refused by both": systems})
    assert 0 < systems < 9 and any(goes_on for _, goes_on in asked)


def test_what_differs_is_said() -> None:
    refused = InvalidRequest("chat_template_failed", "no", "messages")
    cases = (([1, 2], [1, 2]), ([1, 1, 2], [1, 2]), ([1], None), (refused, [1]), (refused, None))
    wanted = ["equal", "different", "different", "refused by umbel alone", "refused by both"]
    assert [verdict(*case) for case in cases] == wanted
