"""Options of jobs that want vectors instead of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from umbel.batch.declared import Option
from umbel.errors import InvalidRequest, UsageError

if TYPE_CHECKING:
    from umbel.ir.pooling import Pooler, PoolingParams

_TASK = "What rows get: an answer, their embedding, or their classes [what the model is for]."


@dataclass(frozen=True, slots=True)
class PoolingOptions:
    """Vectors instead of answers, for rows that do not ask for one themselves.

    Example: --task embed --pooling-type MEAN --dimensions 256
    """

    task: Annotated[Literal["generate", "embed", "classify"] | None, Option(help=_TASK)] = None
    pooling_type: Annotated[
        Literal["LAST", "MEAN"] | None, Option(help="Embed by the last token, or the mean of all [the model's].")
    ] = None
    dimensions: Annotated[int | None, Option(help="So many numbers of embeddings, of models that allow it.")] = None

    def params(self, pooler: Pooler) -> PoolingParams | None:
        """What rows get from a model, None for answers. Raises UsageError for what it does not give."""
        task = self.task or (pooler.task if pooler.runner == "pooling" else "generate")
        from umbel.ir.pooling import PoolingParams

        given = {"--pooling-type": self.pooling_type, "--dimensions": self.dimensions}
        named = [option for option, value in given.items() if value is not None]
        if task == "generate" and named:
            raise UsageError(f"{named[0]}: is about embeddings; give --task embed")
        try:
            asked = None if task == "generate" else PoolingParams(task, self.pooling_type, None, self.dimensions)
            if asked is not None or self.task is not None:
                pooler.check(asked)
        except InvalidRequest as error:
            raise UsageError(f"--{(error.param or 'task').replace('_', '-')}: {error.message}") from None
        return asked
