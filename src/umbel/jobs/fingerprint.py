"""What makes two runs the same job: the input's bytes, the model's files, and every setting that affects an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from shlex import quote
from typing import Any

import orjson

from umbel import registry
from umbel.config import DECIDED_HERE, choices
from umbel.errors import UsageError
from umbel.jobs.read.formats.documents import DocumentStyle
from umbel.jobs.read.records import ReadOptions
from umbel.technique import OPTIONS
from umbel.text.answers.formats import WHOLE

_OPTIONS = (
    *("dtype", "attention_backend", "linear", "kv_cache_dtype", "tensor_parallel_size", "load_format", "seed"),
    *("temperature", "top_p", "top_k", "max_tokens", "calibration_prompt"),
)
DECIDED_PARTS = frozenset(f"engine.{name}" for name in DECIDED_HERE)


def documents_identity(options: ReadOptions) -> dict[str, Any]:
    """How the documents of rows are written, where it is said, and in which order."""
    style, usual = options.documents, DocumentStyle()
    parts: dict[str, Any] = {"read.documents": style.column} if style.column != usual.column else {}
    parts |= {"read.document_format": repr(style.each.parts)} if style.each != usual.each else {}
    return parts | ({} if style.tree is None else {"read.document_order": style.tree.digest})


def fingerprint(
    source: Mapping[str, Any],
    options: ReadOptions,
    model: Mapping[str, str],
    engine: Mapping[str, Any],
    version: str,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """The job's identity as flat, printable parts, so that a mismatch can be listed line by line.

    `source`: of the input, from `input_identity`.
    `model`: from `hash_model`; the spelling of the directory does not count, as the files do.
    `engine`: the identity of the engine's settings (EngineConfig), so that a job may be resumed with another chunk size
        or pool.
    `names`: the names given to the model.
    """
    parts: dict[str, Any] = {"version": version, **source}
    parts |= {f"model.{name}": digest for name, digest in model.items()}
    parts |= {f"engine.{name}": value for name, value in engine.items()}
    parts |= {f"default.{name}": value for name, value in asdict(options.defaults).items()}
    parts |= {"read.template": options.template, "read.chat": options.chat, "read.strict": options.strict}
    parts |= {"read.system": options.system} if options.system is not None else {}
    parts |= documents_identity(options)
    if options.completions is not None and options.completions.max_tokens != options.defaults.max_tokens:
        parts["read.completions.max_tokens"] = options.completions.max_tokens
    if options.chat_options.variables:
        parts["read.chat_template_kwargs"] = options.chat_options.variables
    if options.branches is not None:
        parts["read.choices"] = list(options.branches.choices)
        parts["read.calibration_prompt"] = options.branches.calibration_prompt
    if options.vectors is not None:
        parts["read.vectors"] = asdict(options.vectors)
    if options.answers != WHOLE:
        parts |= {"read.tool_call_parser": options.answers.calls, "read.reasoning_parser": options.answers.reasoning}
    parts["read.names"] = sorted(names)
    parts |= {"read.id": options.id_column, "read.include_prompt": options.include_prompt}
    parts["read.keep"] = "all" if options.keep is None else ",".join(options.keep) or "none"
    return dict(orjson.loads(orjson.dumps(parts)))  # tuples become lists, as they come back from the store


def job_key(parts: Mapping[str, Any]) -> str:
    """16 hex digits for ids in the output. They depend on all but the input, as a row's bytes depend on that row only,
    and all but the settings that the machine decides, which are not known yet."""
    kept = {name: value for name, value in parts.items() if not name.startswith("input.") and name not in DECIDED_PARTS}
    return blake2b(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


def system_fingerprint(parts: Mapping[str, Any]) -> str:
    """The name of a model and the settings that it runs with, as OpenAI's answers have one."""
    kept = {name: parts[name] for name in parts if name.startswith(("model.", "engine.")) and name not in DECIDED_PARTS}
    kept["version"] = parts.get("version")
    return "fp_" + blake2b(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS), digest_size=5).hexdigest()


def merge(stored: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Two fingerprints of one job as one: a setting that one of them leaves to the machine is taken from the other."""
    return {**now, **{name: stored[name] for name in DECIDED_PARTS & stored.keys() if stored[name] != "auto"}}


def compare(stored: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The parts of two fingerprints that differ, as (stored, now). Settings that the machine decides are not compared
    before they are known."""
    names = [*stored, *(name for name in now if name not in stored)]
    pairs = {name: (stored.get(name), now.get(name)) for name in names}
    return {n: both for n, both in pairs.items() if both[0] != both[1] and not (n in DECIDED_PARTS and "auto" in both)}


def undoing(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """The options to type so that settings are as stored; '' where no option and no variable decides the difference."""
    typed = [_typed(name.partition(".")[2], stored, now) for name, (stored, now) in differences.items() if stored != []]
    return " ".join(filter(None, typed))


def _typed(name: str, stored: Any, now: Any) -> str:
    if name == "kernels":
        return _kernels(stored, now)
    if name == "device":
        return f"--device {'cpu' if stored == 'cpu' else 'cuda'}"
    if name == "attention_backend" and stored not in choices("attention_backend"):
        return "--attention-backend auto"
    if name == "watchers":
        return " ".join(f"--watcher {quote(one)}" for one in stored.split(", ")) if stored else "no --watcher"
    if name == "technique":
        each = " ".join(f"--technique {quote(one)}" for one in stored.split("; ")) if stored else ""
        return f"{each} --allow-lossy" if each else "no --technique"
    if name not in _OPTIONS and name not in OPTIONS.values():
        return ""
    option = f"--{name.replace('_', '-')}"
    lossy = " --allow-lossy" if _is_lossy(name, stored) else ""
    return f"no {option}" if stored is None else f"{option} {quote(str(stored))}{lossy}"


def _is_lossy(option: str, value: Any) -> bool:
    """Whether the technique that a value of an option takes may change answers; one that is broken says nothing."""
    try:
        row = registry.at(option, value)
    except UsageError:
        return False
    return row is not None and not row.exact


def _kernels(stored: str, now: str) -> str:
    if "triton" in (stored, now):
        return f"UMBEL_TRITON={1 if stored == 'triton' else 0}"
    return f"UMBEL_NATIVE={0 if stored == 'torch' else stored}"
