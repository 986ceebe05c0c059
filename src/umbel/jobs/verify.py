"""Checks an output file against its input, knowing nothing of how it was made.

Shares no code with the readers, the store or the writers, and uses the standard library's JSON instead of theirs, so
that one mistake cannot be on both sides.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umbel.errors import UsageError
from umbel.jobs.verify_columns import FILE, Expected
from umbel.jobs.verify_input import input_rows, is_table
from umbel.jobs.verify_output import is_table_file, output_rows

MAX_FINDINGS = 20
UNREACHED = ("batch_expired", "batch_cancelled")
REASONS = ("stop", "length", "repetition")
UNREAD = frozenset({"invalid_json_line", "line_too_long", "damaged_input", "invalid_csv_line"})
"""Errors of rows that could not be read, so that none of their columns come back."""


@dataclass(slots=True)
class Verdict:
    """The result of the check: `findings` are faults of the output (at most 20 are kept, `faults` counts all).

    `order` is "input", "other" or "unknown" (too few ids to tell), `input_sha256` a digest, or one by the name of each
    of several files.
    """

    rows: int = 0
    answers: int = 0
    errors: int = 0
    faults: int = 0
    order: str = "input"
    findings: list[str] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    input_sha256: str | dict[str, str] = ""
    output_sha256: str = ""

    def fault(self, text: str) -> None:
        """Note a fault of the output."""
        self.faults += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(text)

    @property
    def exit_code(self) -> int:
        """0: sound and all rows answered, 3: sound with error rows, 1: not sound."""
        if self.faults:
            return 1
        return 3 if self.errors else 0

    def as_dict(self) -> dict[str, Any]:
        """The verdict as one JSON object."""
        names = ("rows", "answers", "errors", "faults", "order", "findings", "input_sha256", "output_sha256")
        return {"sound": not self.faults, **{name: getattr(self, name) for name in names}, "codes": dict(self.codes)}


Row = tuple[str | None, int | None]
"""The id of a row, and the digest of its columns; None where no columns are expected."""


def verify(
    source: Path | Mapping[str, Path],
    output: Path,
    *,
    templated: bool = False,
    errors: Path | None = None,
    keep: tuple[str, ...] | None = None,
    id_column: str | None = None,
) -> Verdict:
    """Check `output`, and the file of `errors` beside it, against `source`, which is one file or several by their
    names. `templated` says that prompts were made from columns, `keep` and `id_column` which columns came back and
    which gave the ids. Raises UsageError."""
    sources: Mapping[str | None, Path] = {None: source} if isinstance(source, Path) else source
    digests = {name: _digest(path) for name, path in sources.items()}
    verdict = Verdict(input_sha256=digests.get(None, digests), output_sha256=_digest(output))
    files = [output] if errors is None else [output, errors]
    loose = any(is_table_file(file) for file in files)
    expected: dict[str | None, Expected] = {}
    wanted = list[Row]()
    for name, path in sources.items():
        with _readable(path):
            expected[name] = Expected(keep, id_column, is_table(path), templated, loose, name)
            wanted += _wanted(path, expected[name], first=len(wanted))
    found: list[list[Row]] = []
    for file in files:
        answers, failed = verdict.answers, verdict.errors
        with _readable(file):
            found.append([_check_row(verdict, n, item, expected) for n, item in enumerate(output_rows(file), 1)])
        if errors is not None and (verdict.answers > answers if file is errors else verdict.errors > failed):
            verdict.fault(f"{file}: answers and errors are not apart")
    verdict.rows = len(wanted)
    there = [row for rows in found for row in rows]
    if len(there) != len(wanted):
        verdict.fault(f"{len(wanted):,} input rows but {len(there):,} output rows")
    if not all(_in_order(wanted, rows) for rows in found):
        verdict.order = "other"
    _check_ids(verdict, wanted, there)
    return verdict


def _wanted(path: Path, expected: Expected, first: int) -> Iterator[Row]:
    """The rows of a file of the input, whose first one has the number `first` among all."""
    for name, fields in input_rows(path, templated=expected.templated, id_column=expected.id_column, first=first):
        yield name, None if fields is None else expected.of_input(fields)


def _in_order(wanted: list[Row], found: list[Row]) -> bool:
    """Whether the ids found are among those wanted in the same order."""
    left = iter(name for name, _ in wanted)
    return all(any(name == other for other in left) for name, _ in found)


def _check_ids(verdict: Verdict, wanted: list[Row], found: list[Row]) -> None:
    before, after = Counter(name for name, _ in wanted), Counter(name for name, _ in found)
    for name in [name for name in before if before[name] > after[name]]:
        verdict.fault(f"id {name!r:.120}: {before[name]} in the input, {after[name]} in the output")
    for name in [name for name in after if after[name] > before[name]]:
        verdict.fault(f"id {name!r:.120}: {after[name]} in the output, {before[name]} in the input")
    if before != after:
        return
    left: dict[str | None, list[int]] = {}
    for name, digest in wanted:
        if digest is not None:
            left.setdefault(name, []).append(digest)
    for name, digest in found:
        there = left.get(name)
        if digest is None or there is None:
            continue
        if digest not in there:
            verdict.fault(f"id {name!r:.120}: columns of the input are missing or differ")
        else:
            there.remove(digest)


def _check_row(
    verdict: Verdict, number: int, item: dict[str, Any] | str, expected: Mapping[str | None, Expected]
) -> Row:
    """Check one row of an output by itself; returns its id and the digest of its columns, by what is `expected` of rows
    of its file."""
    if isinstance(item, str):
        verdict.fault(f"output line {number}: {item}")
        return None, None
    if "custom_id" not in item or "error" not in item:
        verdict.fault(f"output line {number}: not an object with custom_id and error")
        return None, None
    openai = "response" in item and "text" not in item
    try:
        code = _check_openai(item) if openai else _check_plain(item)
    except (AssertionError, KeyError, TypeError, AttributeError, IndexError) as error:
        verdict.fault(f"output line {number} (id {item['custom_id']!r}): {error or 'answer and error disagree'}")
        code = None
    else:
        verdict.answers += code is None
        verdict.errors += code is not None
    if code is not None:
        verdict.codes[code] += 1
    name, file = item["custom_id"], item.get(FILE)
    of_file = expected.get(file if isinstance(file, str) else None) or next(iter(expected.values()))
    return name if isinstance(name, str) else None, None if openai or code in UNREAD else of_file.of_output(item)


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise AssertionError(text)


def _check_plain(item: dict[str, Any]) -> str | None:
    """The error code of a plain line, None for an answer. Raises AssertionError or KeyError when it is inconsistent."""
    if item["error"] is not None:
        _require(item.get("text") is None and not item.get("choices"), "an error beside an answer")
        _require(set(item["error"]) == {"message", "type", "param", "code"}, "an error object of another shape")
        return str(item["error"]["code"])
    if item.get("embedding") is not None or item.get("probs") is not None:
        _check_vector(item)
        return None
    if item.get("choice") is not None or item.get("scores") is not None:
        _check_scores(item)
        return None
    choices = item.get("choices", [item])
    _require(len(choices) > 0, "no choices")
    for choice in choices:
        _require(isinstance(choice["text"], str), "no text")
        _require(choice["finish_reason"] in REASONS, f"finish_reason {choice['finish_reason']!r}")
        logprobs = choice.get("logprobs")
        _require(
            logprobs is None or len(logprobs) == len(choice["token_ids"]), "logprobs and token_ids differ in length"
        )
    produced = sum(len(choice["token_ids"]) for choice in choices)
    _require(item["usage"]["completion_tokens"] == produced, f"usage does not count the {produced} token_ids")
    _require(item["usage"]["prompt_tokens"] > 0, "no prompt tokens")
    return None


def _check_scores(item: dict[str, Any]) -> None:
    """A line of scores instead of an answer. Raises AssertionError or KeyError when it is inconsistent."""
    _require(item["usage"]["completion_tokens"] == 0 < item["usage"]["prompt_tokens"], "usage of scores")
    for score in item.get("scores") or ():
        _require(len(score["token_ids"]) == len(score["token_logprobs"]) > 0, "scores and token_ids differ in length")
        _require(abs(sum(score["token_logprobs"]) - score["logprob"]) < 1e-6, "a score that is not its tokens' sum")
    if item.get("choice") is not None:
        shares = item["choice_probabilities"]
        _require(len(shares) == len(item["choice_logprobs"]) > 1, "choices without a probability each")
        _require(abs(sum(shares) - 1) < 1e-6, f"probabilities that add up to {sum(shares)}")


def _check_data(body: dict[str, Any]) -> None:
    """A body of vectors, scores or ranks. Raises AssertionError or KeyError when it is inconsistent."""
    _require(body["usage"]["completion_tokens"] == 0 < body["usage"]["prompt_tokens"], "usage of vectors")
    if "results" in body:
        scores = [one["relevance_score"] for one in body["results"]]
        _require(scores == sorted(scores, reverse=True), "a ranking out of order")
        return
    _require([one["index"] for one in body["data"]] == list(range(len(body["data"]))), "data out of order")


def _check_vector(item: dict[str, Any]) -> None:
    """A line of a vector instead of an answer. Raises AssertionError or KeyError when it is inconsistent."""
    _require(item["usage"]["completion_tokens"] == 0 < item["usage"]["prompt_tokens"], "usage of a vector")
    numbers = item.get("embedding") or item.get("probs") or ()
    _require(len(numbers) > 0 and all(isinstance(n, float) for n in numbers), "a vector that is not of numbers")


def _check_openai(item: dict[str, Any]) -> str | None:
    response = item["response"]
    _require(item["id"].startswith("batch_req_"), f"id {item['id']!r}")
    if response is None:
        code = str(item["error"]["code"])
        _require(code in UNREACHED, f"neither a response nor one of {', '.join(UNREACHED)}")
        return code
    body = response["body"]
    _require(item["error"] is None, "a response beside an error")
    if response["status_code"] != 200:
        _require("choices" not in body, "an error beside an answer")
        return str(body["error"]["code"])
    _require("error" not in body, "status 200 with an error")
    _require(isinstance(body["created"], int) and body["system_fingerprint"], "no created or system_fingerprint")
    usage = body["usage"]
    _require(usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"], "usage does not add up")
    if "choices" not in body:
        _check_data(body)
        return None
    _require([c["index"] for c in body["choices"]] == list(range(len(body["choices"]))), "choices out of order")
    for choice in body["choices"]:
        text = choice["message"]["content"] if body["object"] == "chat.completion" else choice["text"]
        _require(isinstance(text, str), "no text")
        _require(choice["finish_reason"] in REASONS, f"finish_reason {choice['finish_reason']!r}")
    return None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn errors of reading a file into a UsageError."""
    try:
        yield
    except (OSError, ValueError) as error:  # a Parquet file that is damaged is a ValueError
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UsageError(f"{path}: is not a regular file, and must be read more than once; give a file")
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    return digest.hexdigest()
