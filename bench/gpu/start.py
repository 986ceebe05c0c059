"""One start, in a process of its own: `python -m bench.gpu.start MODEL DEVICE DTYPE` prints what took how long."""

from __future__ import annotations

import json
import sys
import time


def main(model: str, device: str, dtype: str) -> None:
    """Load the model and give one token."""
    began = time.perf_counter()
    from umbel.api import LLM
    from umbel.ir.params import SamplingParams

    imported = time.perf_counter()
    llm = LLM(model, device=device, dtype=dtype)
    loaded = time.perf_counter()
    (answer,) = llm.generate([[1, 2, 3]], SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True))
    if answer.error is not None or len(answer.outputs[0].token_ids) != 1:
        raise SystemExit(f"no token: {answer.error}")
    done = time.perf_counter()
    print(json.dumps({"imports s": imported - began, "load s": loaded - imported, "first token s": done - loaded}))


if __name__ == "__main__":
    main(*sys.argv[1:])
