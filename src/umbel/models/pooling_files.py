"""What a model's files say of vectors: sentence-transformers' modules, and the head for classes of config.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from umbel.errors import ModelError
from umbel.ir.pooling import Pooler
from umbel.models.config_file import MAX_CONFIG_BYTES, Config, ids_of, is_int, is_text, shorten
from umbel.models.sources.base import ModelSource

MODULES = "modules.json"
CAUSAL = ("ForCausalLM", "LMHeadModel")
CLASSES = "ForSequenceClassification"
MAX_LABELS = 65_536
_MODES = {"pooling_mode_lasttoken": "LAST", "pooling_mode_mean_tokens": "MEAN", "lasttoken": "LAST", "mean": "MEAN"}
_IDENTITY, _SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"
_BY_PROBLEM: Mapping[str, Literal["softmax", "sigmoid", "none"]] = {
    "regression": "none",
    "multi_label_classification": "sigmoid",
}

Head = Literal["tokens", "none", "classes"]


def head_of(config: Config, causal: str) -> Head:
    """Which head a checkpoint has by the class in its config.json; `causal` is the one that writes tokens. Raises
    ModelError for one that is none of the same model."""
    named = config.get("architectures")
    if not named or named == [causal]:
        return "tokens"
    base = causal
    for end in CAUSAL:
        base = base.removesuffix(end)
    if named in ([f"{base}Model"], [f"{base}TextModel"]):
        return "none"
    if named in ([f"{base}{CLASSES}"], [f"{base}Text{CLASSES}"]):
        return "classes"
    known = f"{causal}, {base}Model and {base}{CLASSES} are"
    raise ModelError(f"architectures={shorten(named)}: of {config.get('model_type')!r} models only {known} supported")


def pooler_of(source: ModelSource, config: Config, head: Head) -> tuple[Pooler, list[str]]:
    """What a model gives instead of tokens, and notes for the user. Raises ModelError for files that cannot be read,
    and values that are not known."""
    has_head, dimensions = head == "tokens", _dimensions(config)
    if head == "classes":
        labels = _labels(config)
        activation, pad = _activation(config, len(labels)), next(iter(ids_of(config, "pad_token_id")), None)
        return Pooler("pooling", has_head=False, labels=labels, activation=activation, pad=pad), []
    modules = _modules(source)
    if modules is None:
        return Pooler("generate" if has_head else "pooling", has_head, dimensions=dimensions), []
    why_not = _unknown_part(modules)
    pooling, beside = (None, None) if why_not else _pooling_type(source, modules)
    normalize = any(kind == "Normalize" for kind, _ in modules)
    pooler = Pooler("pooling", has_head, pooling or "LAST", normalize, why_not or beside, dimensions)
    return pooler, _notes(source)


def _modules(source: ModelSource) -> list[tuple[str, str]] | None:
    """Kind and folder of the parts of a sentence-transformers model, in order; None where it is none."""
    data = source.read(MODULES, MAX_CONFIG_BYTES)
    if data is None:
        return None
    try:
        found = [(part["type"].rpartition(".")[2], part["path"]) for part in json.loads(data)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ModelError(f"{source.place(MODULES)}: is no list of objects with type and path") from None
    if not all(is_text(kind) and is_text(path) for kind, path in found):
        raise ModelError(f"{source.place(MODULES)}: type and path of a part must be texts")
    return found


def _unknown_part(modules: list[tuple[str, str]]) -> str | None:
    """Why the parts of a model are not all computed, None where they are."""
    order = [kind for kind, _ in modules]
    if order in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None
    return f"{MODULES} has the parts {shorten(', '.join(order))}; Transformer, Pooling and Normalize are computed"


def _pooling_type(source: ModelSource, modules: list[tuple[str, str]]) -> tuple[str | None, str | None]:
    """How states are pooled, or why that is not computed."""
    folder = next(path for kind, path in modules if kind == "Pooling")
    stated = source.read_json(f"{folder}/config.json") if folder.replace("_", "").isalnum() else None
    if stated is None:
        return None, f"{MODULES} names {shorten(folder)}, and there is no config.json in it"
    modes = [key for key, value in stated.items() if key.startswith("pooling_mode_") and value is True]
    modes += [stated["pooling_mode"]] if is_text(stated.get("pooling_mode")) else []
    if len(modes) != 1 or modes[0] not in _MODES:
        return (
            None,
            f"{folder}/config.json pools by {shorten(', '.join(modes))}; the last token or the mean is computed",
        )
    if stated.get("include_prompt") is False:
        return None, f"{folder}/config.json: include_prompt=False: an instruction is not left out of the pooling"
    return _MODES[modes[0]], None


def _notes(source: ModelSource) -> list[str]:
    stated = source.read_json("config_sentence_transformers.json") or {}
    limits = source.read_json("sentence_bert_config.json") or {}
    found = []
    if stated.get("prompts"):
        names = shorten(", ".join(map(str, stated["prompts"])))
        found.append(f"config_sentence_transformers.json: prompts ({names}) are not put in front of texts: write them")
    if is_int(limits.get("max_seq_length")):
        count = limits["max_seq_length"]
        found.append(
            f"sentence_bert_config.json: max_seq_length={count:,}: longer texts are not cut; truncate_prompt_tokens "
            "does so"
        )
    return found


def _labels(config: Config) -> tuple[str, ...]:
    """The names of classes, by their numbers."""
    named, count = config.get("id2label"), config.get("num_labels")
    if named is None:
        count = 2 if count is None else count
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_LABELS:
            raise ModelError(f"num_labels={shorten(count)}: must be a whole number from 1 to {MAX_LABELS:,}")
        return tuple(f"LABEL_{i}" for i in range(count))
    if not isinstance(named, dict) or not 0 < len(named) <= MAX_LABELS or not all(map(is_text, named.values())):
        raise ModelError(f"id2label={shorten(named)}: must give a name for each of up to {MAX_LABELS:,} classes")
    if sorted(named) != sorted(map(str, range(len(named)))) or count not in (None, len(named)):
        raise ModelError(f"id2label={shorten(named)}: its numbers must be those from 0 to num_labels - 1")
    return tuple(named[str(i)] for i in range(len(named)))


def _activation(config: Config, count: int) -> Literal["softmax", "sigmoid", "none"]:
    """What makes probabilities of the numbers of classes, as vLLM reads it: by the problem, else by the function of a
    cross-encoder, else by the number of classes."""
    problem = config.get("problem_type")
    if problem is not None and problem not in (*_BY_PROBLEM, "single_label_classification"):
        raise ModelError(f"problem_type={shorten(problem)}: must be regression, single_ or multi_label_classification")
    if problem in _BY_PROBLEM:
        return _BY_PROBLEM[problem]
    for function in _functions(config) if problem is None else ():
        if function not in (_IDENTITY, _SIGMOID):
            raise ModelError(f"activation_fn={shorten(function)}: must be {_IDENTITY} or {_SIGMOID}")
        return "none" if function == _IDENTITY else "sigmoid"
    return "sigmoid" if count == 1 else "softmax"


def _functions(config: Config) -> Iterator[Any]:
    """The function that a cross-encoder's config names, if it does."""
    own = config.get("sentence_transformers")
    if isinstance(own, dict) and "activation_fn" in own:
        yield own["activation_fn"]
    elif config.get("sbert_ce_default_activation_function"):
        yield config["sbert_ce_default_activation_function"]


def _dimensions(config: Config) -> tuple[int, ...] | None:
    """Lengths that embeddings may be cut to; see Pooler."""
    stated = config.get("matryoshka_dimensions")
    if stated is None:
        return () if config.get("is_matryoshka") is True else None
    if not isinstance(stated, list) or not all(is_int(one) and one > 0 for one in stated):
        raise ModelError(f"matryoshka_dimensions={shorten(stated)}: must be a list of whole numbers")
    return tuple(sorted(stated))
