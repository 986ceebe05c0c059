"""Rows of techniques that are off: they were looked at, and no option takes them; refusals say why."""

from __future__ import annotations

from umbel.technique import Technique

LEFT_OUT: tuple[Technique, ...] = (
    Technique(
        "drafter",
        "superposed",
        False,
        "",
        "Superposed Decoding, 2405.18400",
        why_not="writes several drafts of one text by the mean of their last tokens' embeddings, which changes "
        "answers, and samples share their prompt here: ask for n; python -m bench.superposed measures it",
    ),
    Technique(
        "drafter",
        "hamburger",
        False,
        "",
        "HAMburger, 2505.20438",
        why_not="needs trained parts: the model reads several tokens as one vector and writes them with a small "
        "decoder of its own, which have to be trained with it, and nothing rejects a wrong token",
    ),
    Technique(
        "drafter",
        "adablock-dllm",
        False,
        "",
        "AdaBlock-dLLM, 2509.26432",
        why_not="needs trained parts: it chooses the blocks of a masked-diffusion model, which reads to both sides, "
        "and the models here read to the left alone",
    ),
)
