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
    Technique(
        "select",
        "pbs-attn",
        False,
        "",
        "PBS-Attn, 2510.21270",
        why_not="sorts the keys of a segment so that fewer blocks are needed, and a view names cells of positions, in "
        "whose order the kernels add up: sorted, a full budget would no longer be dense attention to the last "
        "bit",
    ),
    Technique(
        "select",
        "delta-attention",
        False,
        "",
        "Delta Attention, 2505.11254",
        why_not="adds to rows what dense attention of every 64th row differs by, and a selector says what rows read, "
        "not what becomes of their outputs",
    ),
    Technique(
        "select",
        "dhsa",
        False,
        "",
        "DHSA, 2510.24606",
        why_not="needs trained parts: a network on keys that finds where chunks end",
    ),
    Technique(
        "select",
        "chunk-llm",
        False,
        "",
        "ChunkLLM, 2510.02361",
        why_not="needs trained parts: adapters of queries and keys in each layer, and one that finds where chunks end",
    ),
    Technique(
        "select",
        "long-heads",
        False,
        "",
        "LongHeads, 2402.10685",
        why_not="numbers the positions of what a head reads for each chunk, so that no distance is larger than in "
        "training, and keys here keep the position that they were rotated for: pages picks without it",
    ),
    Technique(
        "select",
        "segment-masks",
        False,
        "",
        "MAS, 2412.18487",
        why_not="needs trained parts, a LoRA for attention to both sides within a span of the prompt, and the models "
        "here read to the left alone",
    ),
)
