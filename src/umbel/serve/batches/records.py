"""Files and batches as a server keeps them, and as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

LIVE = ("validating", "in_progress", "finalizing", "cancelling")
ENDED = ("completed", "failed", "expired", "cancelled")
_TIMES = (*(f"{state}_at" for state in ("in_progress", "finalizing", *ENDED, "cancelling")),)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file that was uploaded, or that a batch has written (`batch_id`).

    `path` is where it lies below the store; times are seconds since 1970.
    """

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    sha256: str
    path: str
    created_at: int
    expires_at: int | None = None
    batch_id: str | None = None

    def as_openai(self) -> dict[str, Any]:
        """The object of /v1/files."""
        shown = ("id", "bytes", "created_at", "expires_at", "filename", "purpose")
        found = {name: getattr(self, name) for name in shown}
        return {**found, "object": "file", "status": "processed", "status_details": None}


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of a batch whose answers are on disk: `total` in its file, `completed` with an answer, `failed` without."""

    total: int = 0
    completed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch: what was asked for, its state, and when it came to each.

    `times`: seconds since 1970 by name (in_progress_at ...). `errors`: why it failed, as OpenAI's objects. `figures`:
    what its job took, beside what its plan expected. `key`: the Idempotency-Key that it was made with.
    """

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    status: str = "validating"
    metadata: Mapping[str, str] | None = None
    key: str | None = None
    times: Mapping[str, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    errors: tuple[Mapping[str, Any], ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    output_seconds: int | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> BatchRecord:
        """The record that `asdict` was given."""
        return cls(**{**stored, "counts": Counts(**stored["counts"]), "errors": tuple(stored["errors"])})

    @property
    def is_live(self) -> bool:
        """Whether something of it is still to be done."""
        return self.status in LIVE

    def now(self, status: str, second: int, **changes: Any) -> BatchRecord:
        """The batch as it comes to a state; the first time counts."""
        times = {f"{status}_at": second, **self.times}
        return replace(self, status=status, times=times, **changes)

    def as_openai(self, model: str, waits_for: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The object of /v1/batches. `waits_for` is ours: what keeps its rows from running."""
        errors = {"object": "list", "data": list(self.errors)} if self.errors else None
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": model,
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            **{name: self.times.get(name) for name in _TIMES},
            "request_counts": asdict(self.counts),
            "usage": self._usage(),
            "metadata": None if self.metadata is None else dict(self.metadata),
            "waits_for": waits_for,
        }

    def _usage(self) -> dict[str, Any] | None:
        """Tokens, once the batch has ended; those of prompts that were computed for other rows count as cached."""
        if not self.figures:
            return None
        prompt, output = self.figures["prompt_tokens"], self.figures["output_tokens"]
        cached = max(0, prompt - self.figures["computed_prompt_tokens"])
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + output,
        }
