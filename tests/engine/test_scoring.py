"""Scores of continuations and the choice among them: against a plain forward of each, and by the tokens computed."""

from __future__ import annotations

import math

import pytest
import torch

from tests.models.dense import dense_logits
from umbel.api import LLM
from umbel.errors import InvalidRequest, UsageError
from umbel.ir.choices import Chosen, Score, check_choices
from umbel.ir.request import RowError
from umbel.text.continuations import PromptText

PROMPTS = [[5, 6, 7, *range(20, 60)], [5, 6, 7, *range(20, 50), 9], [8]]
CONTINUATIONS = [[3], [4, 5, 6], [4, 5, 7], [4, 5], [100, 101, 102, 103]]


def check(llm: LLM, score: Score, prompt: list[int], continuation: list[int]) -> None:
    """The score is that of a plain forward."""
    ids = [*prompt, *continuation]
    wanted = torch.log_softmax(dense_logits(llm.engine.model.decoder, ids), -1)
    each = [float(wanted[at - 1, ids[at]]) for at in range(len(prompt), len(ids))]
    assert score.error is None and score.token_ids == tuple(continuation)
    assert score.token_logprobs == pytest.approx(each, abs=1e-4)
    assert score.logprob == math.fsum(score.token_logprobs) and score.mean == score.logprob / len(each)
    assert score.perplexity == pytest.approx(math.exp(-sum(each) / len(each)), rel=1e-3)


def test_scores_are_those_of_a_plain_forward_and_prompts_are_computed_once(llm: LLM) -> None:
    with LLM(str(llm.config.model), dtype="float32", device="cpu", prefix="every-fork") as tested:
        found = tested.score(PROMPTS, CONTINUATIONS)
        for prompt, scores in zip(PROMPTS, found, strict=True):
            for score, continuation in zip(scores, CONTINUATIONS, strict=True):
                check(llm, score, prompt, continuation)
        shared = 33  # of the first two prompts
        prompts = sum(map(len, PROMPTS)) - shared
        branches = 3 * (1 + 2 + 1 + 1 + 4)  # [4, 5, 6] and [4, 5, 7] begin with [4, 5]
        assert tested.stats().computed_prompt_tokens == prompts + branches
        assert tested.stats().output_tokens == 0


def test_replies_over_one_prompt_cost_the_prompt_once(llm: LLM) -> None:
    """DualKV's forward: N replies of R tokens behind P of a prompt are P + N * R tokens."""
    prompt, replies = list(range(10, 110)), [[i, *range(40, 47)] for i in range(3, 35)]
    with LLM(str(llm.config.model), dtype="float32", device="cpu", prefix="every-fork", chunk=48) as tested:
        (together,) = tested.score([prompt], replies)
        assert tested.stats().computed_prompt_tokens == 100 + 32 * 8
    assert [score.token_logprobs for score in together] == [
        llm.score([prompt], [reply])[0][0].token_logprobs for reply in replies
    ]


def test_lists_for_each_prompt_and_texts_of_their_own(llm: LLM) -> None:
    found = llm.score(PROMPTS[:2], [[[3], [4, 5, 6]], [[9, 9]]])
    assert [[s.token_ids for s in scores] for scores in found] == [[(3,), (4, 5, 6)], [(9, 9)]]
    ((whole,),) = llm.score(PROMPTS[0])
    check(llm, whole, PROMPTS[0][:1], PROMPTS[0][1:])
    with pytest.raises(UsageError, match="3 prompts but 2 lists"):
        llm.score(PROMPTS, [[[3]], [[4]]])
    with pytest.raises(UsageError, match="list of texts"):
        llm.score(PROMPTS, " yes")
    assert llm.score([], []) == []


def test_texts_are_split_as_lm_evaluation_harness_does(llm: LLM) -> None:
    """Written down from its `_encode_pair`: white space moves to the continuation, whose tokens are those of the whole
    text behind as many as the prompt has alone."""
    encode = llm.tokenizer.encode
    for prompt, continuation in (
        ("the dog reads", " the report"),
        ("Answer: ", "right"),
        ("wea", "ther\n"),
        ("a\n", "b"),
    ):
        blanks = len(prompt) - len(prompt.rstrip())
        context, rest = prompt[: len(prompt) - blanks], prompt[len(prompt) - blanks :] + continuation
        whole, alone = encode([context + rest])[0], encode([context])[0]
        ((score,),) = llm.score([prompt], [continuation])
        assert score.token_ids == tuple(whole[len(alone) :])
        check(llm, score, alone, whole[len(alone) :])


def test_behind_chats_and_ids_texts_are_tokenised_alone(llm: LLM) -> None:
    chat = {"messages": [{"role": "user", "content": "right or wrong?"}]}
    ((score,),) = llm.score([chat], ["right"])
    ids = llm.tokenizer.encode_rendered([llm.tokenizer.render(chat["messages"])])[0]
    check(llm, score, ids, llm.tokenizer.encode(["right"])[0])
    ((score,),) = llm.score([ids], ["right"])
    check(llm, score, ids, llm.tokenizer.encode(["right"])[0])
    ((score,),) = llm.score(["right or"], [[4, 5]])
    check(llm, score, llm.tokenizer.encode(["right or"])[0], [4, 5])


def test_faults_are_named_and_leave_others_as_they_are(llm: LLM) -> None:
    context, vocab = llm.spec.max_positions, llm.spec.vocab_size
    fine = llm.score(PROMPTS, CONTINUATIONS)
    bad: list[list[int]] = [[], [3] * (context - len(PROMPTS[0]) + 1), [vocab], [-1], [True], [1.5]]  # type: ignore[list-item]
    prompts = [*PROMPTS, [], [vocab], "", {"messages": []}, "\ud800"]
    found = llm.score(prompts, [[*CONTINUATIONS, *bad], *[CONTINUATIONS] * 7])
    assert found[0][: len(CONTINUATIONS)] == fine[0] and found[1:3] == fine[1:]
    codes = [score.error.code for score in found[0][len(CONTINUATIONS) :] if score.error is not None]
    assert codes == [
        *("empty_continuation", "context_length_exceeded", "invalid_token_id", "invalid_token_id"),
        *("invalid_type", "invalid_type"),
    ]
    assert all(math.isnan(score.logprob) and not score.token_logprobs for score in found[0][len(CONTINUATIONS) :])
    wanted = ["empty_prompt", "invalid_token_id", "empty_prompt", "empty_array", "invalid_text"]
    assert [scores[0].error.code for scores in found[3:] if scores[0].error is not None] == wanted
    ((blank,),) = llm.score(["  "], ["right"])
    assert blank.error is not None and blank.error.code == "empty_prompt"
    ((alone,),) = llm.score([[5]])
    assert alone.error is not None and alone.error.code == "empty_continuation"


CHOICES = [" right", " wrong answer", "\nreport"]


def test_the_choice_is_the_likeliest_continuation(llm: LLM) -> None:
    prompts = ["Classify the text: the dog reads", "Once upon a time", "Answer with one word"]
    scores = llm.score(prompts, CHOICES)
    for found, mine in zip(llm.choose(prompts, CHOICES), scores, strict=True):
        logprobs = [score.logprob for score in mine]
        assert found.logprobs == tuple(logprobs) and found.index == logprobs.index(max(logprobs))
        assert found.choice == CHOICES[found.index] and found.error is None
        shares = torch.softmax(torch.tensor(logprobs, dtype=torch.float64), 0).tolist()
        assert found.probabilities == pytest.approx(shares, abs=1e-12)


def test_calibration_takes_off_what_the_choices_have_behind_no_content(llm: LLM) -> None:
    prompts, free = ["Classify the text: the dog reads", "Classify the text: the fox"], "Classify the text: N/A"
    (prior,) = llm.score([free], CHOICES)
    for found, mine in zip(llm.choose(prompts, CHOICES, free), llm.score(prompts, CHOICES), strict=True):
        weights = [one.logprob - other.logprob for one, other in zip(mine, prior, strict=True)]
        assert found.index == weights.index(max(weights)) and found.logprobs == tuple(s.logprob for s in mine)
        shares = torch.softmax(torch.tensor(weights, dtype=torch.float64), 0).tolist()
        assert found.probabilities == pytest.approx(shares, abs=1e-12)
    (itself,) = llm.choose(free, CHOICES, free)
    assert itself.probabilities == pytest.approx([1 / 3] * 3)


def test_a_choice_that_begins_another_is_refused(llm: LLM) -> None:
    fine, bad, same = llm.choose(
        ["the fox", "the dog", "a"], [CHOICES, [" right", " wrong", " wrong answer"], ["b", "b"]]
    )
    assert fine == llm.choose("the fox", CHOICES)[0]
    assert bad.error is not None and "' wrong' is the beginning of choice ' wrong answer'" in bad.error.message
    assert (bad.choice, bad.index, bad.logprobs) == ("", -1, ()) and same.error is not None
    with pytest.raises(InvalidRequest, match="at least 2"):
        check_choices(["a"], [[1]])
    check_choices(["a", "b", "c"], [[1, 2], [2], [1, 3, 4]])


def test_choices_of_equal_and_of_impossible_weight() -> None:
    def score(logprob: float) -> Score:
        return Score(logprob, (logprob,), (1,))

    assert Chosen.among(["a", "b"], [score(-2), score(-2)]).index == 0
    assert Chosen.among(["a", "b"], [score(-3e4), score(-1e4)]).probabilities == (0.0, 1.0)
    failed = Chosen.among(["a", "b"], [score(-1), Score.failed(RowError("x", "y"))])
    assert failed.error is not None and failed.error.code == "x"


def test_an_edge_inside_a_token_leaves_nothing_to_score(llm: LLM) -> None:
    """Where the prompt's last token takes the continuation in, there is none of its own."""
    ids = {"ab": [1, 2], "abc": [1, 9]}
    (found,) = PromptText(lambda texts: [ids[text] for text in texts], "ab").behind(["c"])
    assert found.continuation == []
    with pytest.raises(InvalidRequest, match="no tokens of its own"):
        found.check(300, 100)
