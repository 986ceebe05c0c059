"""Which tokens the shared runs of a KV tree hold, so that each can be computed, compared and computed again."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from umbel.ir.columns import Columns, runs
from umbel.ir.documents import Documents

Ints = NDArray[np.int64]
TokenIds = NDArray[np.int32]


class TokenLog(Columns):
    """Per node, the text that its tokens stand in and where in it they begin, and whether they are a `document` (1),
    which is computed apart from what stands before it. A text is dropped with its last node.

    Prompts stay where they are, in the tokens of their workload.
    """

    _FILLS: ClassVar[dict[str, float]] = {"_text": -1, "_at": 0, "document": 0}
    document: Ints
    _text: Ints
    _at: Ints

    def __init__(self, capacity: int):
        super().__init__(capacity)
        self._texts: dict[int, TokenIds] = {}
        self._readers: dict[int, int] = {}  # text -> nodes in it
        self._next = 0
        self.has_documents = False  # whether there ever was one

    def read(self, nodes: Ints, tokens: TokenIds, at: Ints, documents: Documents | None = None) -> None:
        """The tokens of each node stand in `tokens`, from `at` on, where there are these documents."""
        if len(nodes):
            self._text[nodes], self._at[nodes] = self._add(tokens, len(nodes)), at
            self.document[nodes] = 0 if documents is None else documents.which(at) >= 0
            self.has_documents = self.has_documents or documents is not None

    def write(self, node: int, tokens: TokenIds) -> None:
        """The node holds these tokens, which were generated."""
        self._text[node], self._at[node] = self._add(tokens, 1), 0

    def split(self, node: int, upper: int, at: int) -> None:
        """The first `at` tokens of the node are those of `upper` now."""
        text = self._text.item(node)
        self._text[upper], self._at[upper] = text, self._at[node]
        self._at[node] += at
        self._readers[text] += 1

    def drop(self, node: int) -> None:
        """The node is gone."""
        text = self._text.item(node)
        if text < 0:
            return
        self._text[node] = -1
        self.document[node] = 0
        self._readers[text] -= 1
        if not self._readers[text]:
            del self._readers[text], self._texts[text]

    def of(self, node: int, first: int, count: int) -> TokenIds:
        """`count` tokens of a node, from its token `first` on."""
        begin = self._at.item(node) + first
        return self._texts[self._text.item(node)][begin : begin + count]

    def gather(self, nodes: Ints, first: Ints, counts: Ints) -> TokenIds:
        """`counts[i]` tokens of `nodes[i]`, from its token `first[i]` on, node after node."""
        texts, at = self._text[nodes], self._at[nodes] + first
        if (texts == texts[0]).all():
            return self._texts[texts.item(0)][runs(at, counts)]
        tokens, place = np.empty(int(counts.sum()), np.int32), np.cumsum(counts) - counts
        for number in set(texts.tolist()):
            these = texts == number
            tokens[runs(place[these], counts[these])] = self._texts[number][runs(at[these], counts[these])]
        return tokens

    def _add(self, tokens: TokenIds, readers: int) -> int:
        self._texts[self._next], self._readers[self._next] = tokens, readers
        self._next += 1
        return self._next - 1
