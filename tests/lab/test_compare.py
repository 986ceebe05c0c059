"""What is measured of answers, against token by token comparisons of plain runs by hand."""

from __future__ import annotations

from statistics import median

import pytest

from umbel import LLM, SamplingParams
from umbel.lab.answers import Answered, AnsweringModel, LabAnswer
from umbel.lab.compare import drifts, parting, task_damage
from umbel.lab.tasks import LabTask


@pytest.mark.parametrize(
    ("dense", "other", "place"),
    [
        ((1, 2, 3), (1, 2, 3), None),
        ((1, 2, 3), (1, 5, 3), 1),
        ((1, 2, 3), (1, 2), 2),
        ((1, 2), (1, 2, 3), 2),
        ((), (), None),
        ((), (4,), 0),
    ],
)
def test_answers_part_where_a_token_differs(dense: tuple[int, ...], other: tuple[int, ...], place: int | None) -> None:
    assert parting(dense, other) == place


def answer(ids: tuple[int, ...], *logprobs: dict[int, float], text: str = "") -> LabAnswer:
    return LabAnswer(ids, logprobs, text, 10)


def test_drift_is_of_dense_s_tokens_up_to_where_answers_part() -> None:
    """At the second place another token is drawn: dense's own counts there, and nothing behind it."""
    dense = answer((1, 2, 3), {1: -0.1, 9: -3.0}, {2: -0.5}, {3: -0.2})
    other = answer((1, 7, 3), {1: -0.4, 9: -2.0}, {7: -0.3, 2: -1.5}, {3: -9.0})
    assert list(drifts(dense, other)) == pytest.approx([0.3, 1.0])
    unlikely = answer((1, 7), {1: -0.1}, {7: -0.3, 5: -4.5})
    assert list(drifts(dense, unlikely)) == pytest.approx([0.0, 4.0])  # as unlikely as the least that is known


def test_losses_are_rows_that_dense_has_right() -> None:
    """One of four labelled rows is lost and another won: as many are right as before."""
    texts = (("a", "a"), ("a", "b"), ("b", "a"), ("b", "b"), ("?", "!"))
    pairs = [(answer((1,), {1: 0.0}, text=x), answer((1,), {1: 0.0}, text=y)) for x, y in texts]
    judges = [*[lambda text: text == "a"] * 4, None]
    task = LabTask("t", ["p"] * 5, [4] * 5, judges)
    dense, other = (Answered([pair[side] for pair in pairs], 2.0 + side) for side in (0, 1))
    found = task_damage(task, dense, other)
    assert (found.rows, found.labelled, found.dense_right, found.right, found.lost) == (5, 4, 2, 2, 1)
    assert found.share_lost == 0.5 and (found.dense_seconds, found.seconds) == (2.0, 3.0)


def test_figures_of_a_technique_are_those_of_two_plain_runs() -> None:
    """Products in int4 on the demo model: tokens and log-probabilities of two plain runs, compared here."""
    prompts = [f"Text: the {noun} was {word}.\nSentiment:" for noun in ("lamp", "phone") for word in ("great", "awful")]
    options = {"device": "cpu", "dtype": "float32"}
    lossy = {**options, "linear": "int4", "allow_lossy": True}
    params = SamplingParams(temperature=0.0, max_tokens=12, logprobs=20)
    plain = [LLM("demo", **asked).generate(prompts, params, use_tqdm=False) for asked in (options, lossy)]
    places, moved = [], []
    for one, two in zip(*plain, strict=True):
        a, b = one.outputs[0], two.outputs[0]
        place = 0
        while place < min(len(a.token_ids), len(b.token_ids)):
            token = a.token_ids[place]
            if token in b.logprobs[place]:
                moved.append(abs(a.logprobs[place][token].logprob - b.logprobs[place][token].logprob))
            if token != b.token_ids[place]:
                break
            place += 1
        if a.token_ids != b.token_ids:
            places.append(place)
    task = LabTask("t", prompts, [12] * 4, [None] * 4)
    models = [AnsweringModel("demo", **asked) for asked in (options, lossy)]
    found = task_damage(task, *(model.answer(task, 1) for model in models))
    assert (found.parted, found.parting) == (len(places), median(places) if places else None)
    assert found.drift == pytest.approx(sum(moved) / len(moved)) and found.most_drift == pytest.approx(max(moved))
    assert found.drift > 0 and found.dense_seconds > 0 < found.seconds
    assert models[1].weight_bytes < models[0].weight_bytes / 2 and models[1].kv_bytes == models[0].kv_bytes
