"""OpenVINO GenAI's continuous batching with prefix caching, token ids in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wire


def prepare(ask: Any) -> dict[str, Any]:
    """Export a Hugging Face directory to OpenVINO's form with the weights as they are, unless that is there, or the
    directory is one already (with weights of fewer bits, say)."""
    if (Path(ask["model"]) / "openvino_model.xml").exists():
        return {"model": ask["model"]}
    target = Path(ask["work"]) / (Path(ask["model"]).name + "-openvino")
    if not (target / "openvino_model.xml").exists():
        import openvino
        import torch
        from openvino_tokenizers import convert_tokenizer
        from optimum.intel import OVModelForCausalLM
        from transformers import AutoTokenizer

        model = OVModelForCausalLM.from_pretrained(
            ask["model"], export=True, compile=False, load_in_8bit=False, dtype=getattr(torch, ask["dtype"])
        )
        model.save_pretrained(target)
        tokenizer = AutoTokenizer.from_pretrained(ask["model"])  # the pipeline wants one, even for token ids
        tokenizer.save_pretrained(target)
        parts = convert_tokenizer(tokenizer, with_detokenizer=True)
        for part, name in zip(parts, ("tokenizer", "detokenizer"), strict=True):
            openvino.save_model(part, target / f"openvino_{name}.xml")
    return {"model": str(target)}


class OpenVinoEngine:
    """The engine: one loaded pipeline."""

    def load(self, ask: Any) -> dict[str, Any]:
        """Load the exported model."""
        import openvino
        import openvino_genai

        self.api, self.tensor, self.next_id, settings = openvino_genai, openvino.Tensor, 0, ask["settings"]
        scheduler = openvino_genai.SchedulerConfig()
        for name in ("cache_size", "max_num_batched_tokens", "max_num_seqs"):
            setattr(scheduler, name, settings[name])
        scheduler.enable_prefix_caching = scheduler.dynamic_split_fuse = True
        short = {"bfloat16": "bf16", "float32": "f32"}[ask["dtype"]]
        properties = {
            "INFERENCE_NUM_THREADS": ask["threads"],
            "INFERENCE_PRECISION_HINT": short,
            "KV_CACHE_PRECISION": short,
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": 1,
            # Inputs of which rows are rounded to 8 bits together, where weights have fewer bits; 0: rows are not.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": settings.get("dynamic_quantization", 0),
        }
        self.pipe = openvino_genai.ContinuousBatchingPipeline(ask["model"], scheduler, "CPU", properties)
        return {"versions": {"openvino-genai": openvino_genai.__version__}}

    def run(self, ask: Any) -> dict[str, Any]:
        """Run every row at once."""
        return wire.run_rows(ask, self.stage, self.generate)

    def stage(self, rows: list[dict[str, Any]]) -> Any:
        """(row, prompt, sampling) of every sample."""
        import numpy as np

        staged = []
        for i, row in enumerate(rows):
            ids = self.tensor(np.array([row["prompt"]], dtype=np.int64))
            for _ in range(row["n"]):
                config = self.api.GenerationConfig()
                config.max_new_tokens, config.ignore_eos = row["max_tokens"], True
                config.do_sample = row["temperature"] > 0
                if config.do_sample:
                    config.temperature, config.top_p, config.rng_seed = row["temperature"], 1.0, self.next_id
                staged.append((i, self.next_id, ids, config))
                self.next_id += 1
        return staged

    def generate(self, staged: Any) -> list[list[list[int]]]:
        """Step until every sample is done."""
        handles = [(i, self.pipe.add_request(number, ids, config)) for i, number, ids, config in staged]
        while self.pipe.has_non_finished_requests():
            self.pipe.step()
        answers: list[list[list[int]]] = [[] for _ in range(staged[-1][0] + 1)]
        for i, handle in handles:
            answers[i].append(list(handle.read_all()[0].generated_ids))
        return answers


if __name__ == "__main__":
    engine = OpenVinoEngine()
    wire.serve({"prepare": prepare, "load": engine.load, "run": engine.run})
