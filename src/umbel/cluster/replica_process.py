"""The process of a replica of `LocalPool`: rows come in by a pipe, and what is said of them goes out by another.

It ends when its pipe does, whatever it is doing: its parent is gone then, or wants no more answers.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import BinaryIO

from umbel.cluster.frames import Kind, frame, read_frame
from umbel.cluster.replica import Lots, serve


class Teller:
    """Sends frames back, from several threads; ends the process when the reader is gone."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._lock = threading.Lock()

    def tell(self, kind: Kind, data: bytes, lot: int) -> None:
        """Send one frame."""
        with self._lock:
            try:
                self._stream.write(frame(kind, data, lot))
                self._stream.flush()
            except OSError:
                os._exit(0)


def main(order: str) -> None:
    """Serve until the pipe ends; `order` is what `LocalPool` wrote.

    Ends the process itself, with 1 for an unexpected error: its other threads would hold the model while the
    interpreter shuts down.
    """
    teller, coming, code = Teller(_own_stdout()), Lots(), 1
    threading.Thread(target=_listen, args=(sys.stdin.buffer, coming), daemon=True).start()
    try:
        serve(order, coming, teller.tell)
        code = 0
    except BaseException as error:
        print(f"umbel: a replica ends: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _own_stdout() -> BinaryIO:
    """The pipe behind stdout, which is stderr from now on, so that nothing a library prints gets between frames."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _listen(stream: BinaryIO, coming: Lots) -> None:
    """Take in lots as they come; the end of the pipe ends the process, whatever it computes."""
    while (found := read_frame(stream)) is not None:
        (coming.drop if found.kind is Kind.DROP else coming.put)(found.lot, found.data)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
