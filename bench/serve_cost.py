"""What HTTP costs beside the session that it serves: processor time of one process, paired runs in turn.

Nothing is computed: every token is the same one, so that what is left is the engine's own time and that of HTTP. The
server and the plain session have the same prompts in the same process; the client of the server is a
process of its own, which only reads bytes and keeps its connections. A token's cost is the processor time that a run
of streams takes beyond that of the same streams read from a session, by their tokens; a request's cost likewise of
answers of one token, and the median seconds that a client waits beyond the session's for such an answer.

    python bench/serve_cost.py [--model demo] [--streams 1] [--tokens 400] [--requests 100] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from umbel import LLM, SamplingParams
from umbel.config import EngineConfig
from umbel.ir.step import Step, StepResult
from umbel.runner.base import Wait, done
from umbel.serve.run import SWITCH_SECONDS, bound, build_server
from umbel.serve.service import Service
from umbel.serve.settings import ServeSettings

PROMPT = "Once upon a time"
TOKEN = 300


class SilentRunner:
    """Draws one token again and again."""

    ahead, n_pages, page_size = 0, 4096, 16

    def start(self, step: Step) -> Wait:
        """Draw at once."""
        draws = len(step.sampling)
        return done(StepResult(np.full(draws, TOKEN), np.zeros(draws, bool)))

    def close(self) -> None:
        """There is nothing to give back."""


CLIENT = """
import http.client, sys, threading, time
port, count, repeats, wants = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode()
took = []
def ask():
    one = http.client.HTTPConnection("127.0.0.1", port)  # kept, as SDKs keep theirs
    for _ in range(repeats):
        began = time.perf_counter()
        one.request("POST", "/v1/completions", wants, {"Content-Type": "application/json"})
        got = one.getresponse().read()
        assert b"[DONE]" in got or got.rstrip().endswith(b"}"), got
        took.append(time.perf_counter() - began)
threads = [threading.Thread(target=ask) for _ in range(count)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(took)[len(took) // 2])
"""


def over_http(port: int, streams: int, repeats: int, body: dict[str, object]) -> float:
    """Run a client; the median seconds of a request."""
    asked = [sys.executable, "-c", CLIENT, str(port), str(streams), str(repeats), json.dumps(body)]
    return float(subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout)


def in_session(llm: LLM, streams: int, repeats: int, params: SamplingParams, *, stream: bool) -> float:
    """The same in a session of this process, on a thread as the server's."""
    took = list[float]()
    with llm.session() as session:
        for _ in range(repeats):
            began = time.perf_counter()
            session.add([PROMPT] * streams, params, stream=stream)
            left = streams
            for event in session:
                left -= event.kind == "finished"
                if not left:
                    break
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def measured(act: Callable[[], float]) -> tuple[float, float]:
    """Processor seconds of this process, and what it gives."""
    began = time.process_time()
    found = act()
    return time.process_time() - began, found


def main() -> None:
    """Print both costs, round by round."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="demo")
    for name, value in (("streams", 1), ("tokens", 400), ("requests", 100), ("rounds", 3)):
        options.add_argument(f"--{name}", type=int, default=value)
    asked = options.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)
    llm = LLM(asked.model, runner=SilentRunner())
    place = bound("127.0.0.1", 0)
    server = build_server(Service(llm, ServeSettings(config=EngineConfig(asked.model), names=(asked.model,))))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = place.getsockname()[1]
    long = SamplingParams(temperature=0.0, max_tokens=asked.tokens, ignore_eos=True)
    short = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
    body = {"prompt": PROMPT, "temperature": 0, "ignore_eos": True}
    tokens = asked.streams * asked.tokens
    for turn in range(asked.rounds + 1):
        served, _ = measured(
            lambda: over_http(port, asked.streams, 1, {**body, "max_tokens": asked.tokens, "stream": True})
        )
        plain, _ = measured(lambda: in_session(llm, asked.streams, 1, long, stream=True))
        each, waited = measured(lambda: over_http(port, 1, asked.requests, {**body, "max_tokens": 1}))
        own, alone = measured(lambda: in_session(llm, 1, asked.requests, short, stream=False))
        if turn:
            print(
                f"{1e6 * (served - plain) / tokens:.0f} us a token; a request "
                f"{1e3 * (each - own) / asked.requests:.2f} ms of processor, "
                f"{1e3 * (waited - alone):.2f} ms at the median",
                flush=True,
            )
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
