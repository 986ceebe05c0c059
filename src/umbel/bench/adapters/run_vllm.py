"""vLLM, offline, token ids in and out; prefix caching on, compiled, the cache dropped before each run."""

from __future__ import annotations

import os
from typing import Any

import wire


class VllmEngine:
    """The engine: one loaded model."""

    def load(self, ask: Any) -> dict[str, Any]:
        """Load and compile. Settings are those of vllm.LLM, and, on a CPU, kv_gib."""
        settings = dict(ask["settings"])
        if "kv_gib" in settings:
            os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(settings.pop("kv_gib"))
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = settings.pop("bind", f"0-{ask['threads'] - 1}")
        os.environ["VLLM_CPU_NUM_OF_RESERVED_CPU"] = "0"
        import vllm

        self.params = vllm.SamplingParams
        self.llm = vllm.LLM(
            model=ask["model"],
            dtype=ask["dtype"],
            max_model_len=ask["longest"],
            enable_prefix_caching=True,
            disable_log_stats=True,
            seed=0,
            **settings,
        )
        preload = os.environ.get("LD_PRELOAD", "")
        return {"versions": {"vllm": vllm.__version__}, "preloaded": [os.path.basename(p) for p in preload.split(":")]}

    def run(self, ask: Any) -> dict[str, Any]:
        """Run every row at once."""
        return wire.run_rows(ask, self.stage, self.generate, self.forget)

    def forget(self) -> None:
        """Drop the cache of earlier prompts."""
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache could not be reset")

    def stage(self, rows: list[dict[str, Any]]) -> Any:
        """Prompts and their sampling."""
        params = [
            self.params(
                temperature=r["temperature"], n=r["n"], max_tokens=r["max_tokens"], ignore_eos=True, detokenize=False
            )
            for r in rows
        ]
        return [{"prompt_token_ids": r["prompt"]} for r in rows], params

    def generate(self, staged: Any) -> list[list[list[int]]]:
        """The answers, in the order of the prompts."""
        answers = self.llm.generate(*staged, use_tqdm=False)
        return [[list(sample.token_ids) for sample in answer.outputs] for answer in answers]


if __name__ == "__main__":
    engine = VllmEngine()
    wire.serve({"load": engine.load, "run": engine.run})
