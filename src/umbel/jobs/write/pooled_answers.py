"""Bodies of answers that hold vectors: embeddings, classes, scores and ranks, as OpenAI and vLLM write them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np

from umbel.ir.inputs import Inputs
from umbel.ir.pooling import cosine
from umbel.ir.request import Output
from umbel.jobs.read.records import Style

Vectors = Sequence[Sequence[float]]
IDS = {Style.EMBEDDINGS: "embd", Style.CLASSIFY: "classify", Style.SCORE: "score", Style.RERANK: "rerank"}


def pooled_body(style: Style, inputs: Inputs, outputs: Sequence[Output], labels: Sequence[str]) -> dict[str, Any]:
    """What a body has of the outputs of its inputs, in order: `object` and `data`, or `results`, and `usage`."""
    vectors = [output.vector or () for output in outputs]
    tokens = sum(output.prompt_tokens for output in outputs)
    usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
    if style == Style.RERANK:
        return {"results": _ranked(inputs, _scores(inputs, vectors)), "usage": usage}
    if style == Style.SCORE:
        data = [{"index": i, "object": "score", "score": one} for i, one in enumerate(_scores(inputs, vectors))]
    elif style == Style.CLASSIFY:
        data = [_class(i, vector, labels) for i, vector in enumerate(vectors)]
    else:
        data = [{"object": "embedding", "index": i, "embedding": _written(inputs, v)} for i, v in enumerate(vectors)]
    return {"object": "list", "data": data, "usage": usage}


def _written(inputs: Inputs, vector: Sequence[float]) -> Any:
    """An embedding as numbers, or its float32 numbers, little end first, in base64."""
    return b64encode(np.array(vector, "<f4").tobytes()).decode() if inputs.as_base64 else vector


def _class(index: int, vector: Sequence[float], labels: Sequence[str]) -> dict[str, Any]:
    label = labels[max(range(len(vector)), key=vector.__getitem__)]
    return {"index": index, "label": label, "probs": vector, "num_classes": len(vector)}


def _scores(inputs: Inputs, vectors: Vectors) -> list[float]:
    """How well each text of the right goes with that of the left."""
    if inputs.is_paired:
        return [vector[0] for vector in vectors]
    left, right = vectors[: inputs.left], vectors[inputs.left :]
    return [cosine(left[i if len(left) > 1 else 0], vector) for i, vector in enumerate(right)]


def _ranked(inputs: Inputs, scores: Sequence[float]) -> list[dict[str, Any]]:
    """Documents by their scores, best first; equal ones in their order."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: inputs.top_n]
    documents = inputs.prompts[len(inputs.prompts) - len(scores) :]
    return [{"index": i, "document": _document(documents[i]), "relevance_score": scores[i]} for i in order]


def _document(document: str | tuple[int, ...]) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else {"token_ids": document}
