"""Answers that have become loops end, with the reason, and no earlier than asked."""

from __future__ import annotations

from umbel.api import LLM
from umbel.ir.params import SamplingParams

PROMPTS = [[5 + i, 6, 7] for i in range(8)]
LOOP = {"max_pattern_size": 40, "min_count": 3}


def test_answers_end_when_they_repeat_themselves(llm: LLM) -> None:
    """The answers of a random model: some repeat themselves, the others are as they were. A limit that is reached with
    the same token goes first, and `min_tokens` are reached."""
    base = SamplingParams(temperature=0.0, max_tokens=160, ignore_eos=True)
    plain = [output.outputs[0].token_ids for output in llm.generate(PROMPTS, base)]
    found = [output.outputs[0] for output in llm.generate(PROMPTS, base.clone(repetition_detection=LOOP))]
    detection = base.clone(repetition_detection=LOOP).repetition_detection
    assert detection is not None
    ends = [next((n for n in range(1, 161) if detection.found_in(ids[:n])), None) for ids in plain]
    assert any(ends)
    for ids, end, got in zip(plain, ends, found, strict=True):
        reason = ("length", None) if end in (None, 160) else ("repetition", "repetition_detected")
        assert (got.token_ids, got.finish_reason, got.stop_reason) == (ids[:end], *reason)
    row = next(i for i, end in enumerate(ends) if end is not None)
    end = ends[row] or 0
    limited = base.clone(repetition_detection=LOOP, max_tokens=end)
    late = base.clone(repetition_detection=LOOP, min_tokens=end + 2)
    (short, long) = (llm.generate([PROMPTS[row]], params)[0].outputs[0] for params in (limited, late))
    assert (short.finish_reason, len(short.token_ids)) == ("length", end)
    assert len(long.token_ids) >= end + 2 and long.token_ids[:end] == short.token_ids
