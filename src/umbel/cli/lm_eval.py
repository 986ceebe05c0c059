"""`umbel lm-eval`: the command of lm-evaluation-harness, with the model `umbel` among its models."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from umbel.errors import UsageError


def lm_eval_command(arguments: Sequence[str]) -> int:
    """Run lm_eval with these arguments, `--model umbel` where they name none. Raises UsageError where the package is
    not installed."""
    if find_spec("lm_eval") is None:
        raise UsageError("umbel lm-eval needs lm-evaluation-harness: pip install 'umbel[lm-eval]'")
    from lm_eval.__main__ import cli_evaluate

    import umbel.harness.model  # noqa: F401 (registers the model)

    asked, names = list(arguments), ("--model", "-M")
    if "--tasks" in asked and not any(word in names or word.startswith("--model=") for word in asked):
        asked += ["--model", "umbel"]
    typed, sys.argv = sys.argv, ["umbel lm-eval", *asked]
    try:
        cli_evaluate()
    finally:
        sys.argv = typed
    return 0
