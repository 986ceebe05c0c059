"""Members of an evolution strategy as adapters that a seed draws (EGGROLL, 2511.16652): none lies in a file.

Member m computes with W + s * sigma / sqrt(rank) * A B^T for each matrix W of attention and the MLP, where s is 1 for
even m and -1 for odd ones, and A and B are drawn by the seed, the epoch, m // 2 and the name of the matrix: members 2k
and 2k + 1 are each other's mirror. Vectors, the embedding and the head stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from umbel.errors import ModelError, UsageError
from umbel.ir.adapter import Adapter, LowRank
from umbel.ir.spec import ModelSpec
from umbel.models.parts import Part

SCHEME = "eggroll:"
MAX_RANK = 64
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a population, as it is asked for: "eggroll:seed=7,member=3,sigma=0.01"."""

    seed: int
    member: int
    sigma: float
    rank: int = 1
    epoch: int = 0

    @classmethod
    def parse(cls, text: str) -> Member:
        """Raises UsageError for what is no member."""
        known = {each.name: float if each.name == "sigma" else int for each in fields(cls)}
        given = dict[str, float]()
        for part in text.removeprefix(SCHEME).split(","):
            name, _, value = part.partition("=")
            try:
                given[name] = known[name](value)
            except (KeyError, ValueError):
                raise UsageError(
                    f"lora={text!r:.80}: {part!r:.40} must be one of {', '.join(known)} with a number"
                ) from None
        if missing := [name for name in ("seed", "member", "sigma") if name not in given]:
            raise UsageError(f"lora={text!r:.80}: {missing[0]} is missing")
        found = cls(**given)  # type: ignore[arg-type]
        counts = min(found.seed, found.member, found.epoch)
        if counts < 0 or not 1 <= found.rank <= MAX_RANK or not 0 < found.sigma <= 1e6:
            raise UsageError(f"lora={text!r:.80}: numbers from 0 on, rank from 1 to {MAX_RANK}, sigma above 0")
        return found

    @property
    def scale(self) -> float:
        """What the product of its two matrices is multiplied by."""
        return (-1 if self.member % 2 else 1) * self.sigma / math.sqrt(self.rank)

    def factors(self, module: str, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        """A (`[outputs, rank]`) and B (`[inputs, rank]`) of the matrix `module`, of such a `shape`."""
        key = f"{self.seed} {self.epoch} {self.member // 2} {module}".encode()
        noise = np.random.Generator(np.random.Philox(key=int.from_bytes(sha256(key).digest()[:16], "little")))
        sizes = [(size, self.rank) for size in shape]
        return noise.standard_normal(sizes[0], np.float32), noise.standard_normal(sizes[1], np.float32)


def seeded_adapter(name: str, text: str, spec: ModelSpec, products: Iterator[tuple[str, tuple[Part, ...]]]) -> Adapter:
    """The shape of a member for a model. Raises UsageError, and ModelError for a model that cannot have one."""
    member = Member.parse(text)
    if spec.recurrences or spec.experts is not None:
        what = "layers that keep a state" if spec.recurrences else "experts"
        raise ModelError(f"adapter {name!r} ({text}): {spec.family!r} models have {what}, which are not drawn here")
    found = tuple(
        LowRank(product, parts[0].filled[1], member.rank * len(parts), outputs, member.rank * outputs)
        for product, parts in products
        for outputs in [sum(part.filled[0] for part in parts)]
    )
    digest = sha256(repr(member).encode()).hexdigest()[:16]
    return Adapter(name, text, digest, (member.rank, member.rank), found)


def seeded_matrices(member: Member, parts: tuple[Part, ...]) -> Iterator[tuple[Part, int, Floats, Floats]]:
    """The matrices of a member for each part of a product: the part, where its outputs begin, the inner matrix and the
    outer one, which has the scale in it."""
    begin = 0
    for part in parts:
        outputs, inputs = part.filled
        a, b = member.factors(part.name.removesuffix(".weight"), (outputs, inputs))
        yield part, begin, np.ascontiguousarray(b.T), a * np.float32(member.scale)
        begin += outputs
