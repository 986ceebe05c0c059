"""Umbel itself, through its public API, behind the same protocol as its peers."""

from __future__ import annotations

from typing import Any

import wire


class UmbelEngine:
    """The engine: one loaded model."""

    def load(self, ask: Any) -> dict[str, Any]:
        """Load the model with the engine options in `settings`."""
        import torch

        from umbel.api import LLM
        from umbel.ir.params import SamplingParams

        self.params = SamplingParams
        self.llm = LLM(ask["model"], dtype=ask["dtype"], threads=ask["threads"], **ask["settings"])
        return {"versions": {"umbel": _version(), "torch": torch.__version__}}

    def run(self, ask: Any) -> dict[str, Any]:
        """Run every row at once."""
        return wire.run_rows(ask, self.stage, self.generate)

    def stage(self, rows: list[dict[str, Any]]) -> Any:
        """Prompts and their sampling."""
        params = [
            self.params(n=r["n"], temperature=r["temperature"], max_tokens=r["max_tokens"], ignore_eos=True)
            for r in rows
        ]
        return [r["prompt"] for r in rows], params

    def generate(self, staged: Any) -> list[list[list[int]]]:
        """Plan and run; a row that fails makes the measurement fail."""
        answers = self.llm.generate(*staged)
        failed = next((answer.error for answer in answers if answer.error), None)
        if failed is not None:
            raise RuntimeError(f"{failed.code}: {failed.message}")
        return [[list(sample.token_ids) for sample in answer.outputs] for answer in answers]


def _version() -> str:
    """The version of the installed package; a checkout on PYTHONPATH has none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("umbel")
    except PackageNotFoundError:
        return "a checkout"


if __name__ == "__main__":
    engine = UmbelEngine()
    wire.serve({"load": engine.load, "run": engine.run})
