"""Hugging Face transformers: padded batches, its continuous batching, or one request at a time (the oracle)."""

from __future__ import annotations

from typing import Any

import wire


class TransformersEngine:
    """The engine: one loaded model; `mode` of the settings is static, continuous or single."""

    def load(self, ask: Any) -> dict[str, Any]:
        """Load the model."""
        import torch
        import transformers

        torch.set_num_threads(ask["threads"])
        transformers.logging.set_verbosity_error()
        self.settings, self.torch, self.transformers = ask["settings"], torch, transformers
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            ask["model"],
            dtype=getattr(torch, self.settings.get("dtype", ask["dtype"])),
            attn_implementation=self.settings["attention"],
        ).eval()
        self.model.generation_config.eos_token_id = None
        return {"versions": {"transformers": transformers.__version__, "torch": torch.__version__}}

    def run(self, ask: Any) -> dict[str, Any]:
        """Run every row, in the mode of the settings."""
        self.margins: list[list[float]] = []
        acts = {"static": self.static, "continuous": self.continuous, "single": self.single}
        answer = wire.run_rows(ask, lambda rows: rows, acts[self.settings["mode"]])
        return {**answer, "margins": self.margins}

    def sampling(self, temperature: float, tokens: int, **more: Any) -> Any:
        """Settings for exactly `tokens` tokens, greedy or drawn from the whole vocabulary."""
        drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        return self.transformers.GenerationConfig(
            max_new_tokens=tokens, pad_token_id=0, **{"do_sample": False, **drawn, **more}
        )

    def single(self, rows: list[dict[str, Any]]) -> list[list[list[int]]]:
        """Run one request at a time, greedy, and note by how much each token's logit leads the next one's."""
        answers = []
        for row in rows:
            ids = self.torch.tensor([row["prompt"]])
            config = self.sampling(0.0, row["max_tokens"], output_logits=True, return_dict_in_generate=True)
            with self.torch.inference_mode():
                found = self.model.generate(ids, attention_mask=self.torch.ones_like(ids), generation_config=config)
            top = self.torch.stack(found.logits)[:, 0].float().topk(2).values
            self.margins.append((top[:, 0] - top[:, 1]).tolist())
            answers.append([found.sequences[0, ids.shape[1] :].tolist()])
        return answers

    def static(self, rows: list[dict[str, Any]]) -> list[list[list[int]]]:
        """Run batches of samples of similar length, padded on the left; each runs to its longest answer."""
        answers: list[list[list[int]]] = [[] for _ in rows]
        samples = [i for i, row in enumerate(rows) for _ in range(row["n"])]
        samples.sort(key=lambda i: (rows[i]["max_tokens"] // 16, len(rows[i]["prompt"])))
        at = 0
        while at < len(samples):
            part = samples[at : at + self.settings["batch"]]
            width = max(len(rows[i]["prompt"]) + rows[i]["max_tokens"] for i in part)
            part = part[: max(1, self.settings["cells"] // width)]  # the cache of longer rows would not fit the memory
            at += len(part)
            for i, tokens in zip(part, self.batch([rows[i] for i in part]), strict=True):
                answers[i].append(tokens[: rows[i]["max_tokens"]])
        return answers

    def batch(self, rows: list[dict[str, Any]]) -> list[list[int]]:
        """Run a padded batch."""
        width = max(len(row["prompt"]) for row in rows)
        pads = [width - len(row["prompt"]) for row in rows]
        ids = self.torch.tensor([[0] * pad + row["prompt"] for pad, row in zip(pads, rows, strict=True)])
        mask = self.torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
        config = self.sampling(rows[0]["temperature"], max(row["max_tokens"] for row in rows))
        with self.torch.inference_mode():
            found = self.model.generate(ids, attention_mask=mask, generation_config=config)
        return found[:, width:].tolist()

    def continuous(self, rows: list[dict[str, Any]]) -> list[list[list[int]]]:
        """Run with continuous batching over a paged cache that shares blocks of equal prompts."""
        names = ("page_size", "num_blocks", "max_batch_tokens")
        cache = self.transformers.ContinuousBatchingConfig(
            allow_block_sharing=True, **{name: self.settings[name] for name in names}
        )
        most = max(row["max_tokens"] for row in rows)
        config = self.sampling(rows[0]["temperature"], most, eos_token_id=-1)
        answers: list[list[list[int]]] = [[] for _ in rows]
        manager_of = self.model.continuous_batching_context_manager
        # not inference_mode: its thread changes tensors in place
        with self.torch.no_grad(), manager_of(generation_config=config, continuous_batching_config=cache) as manager:
            for i, row in enumerate(rows):
                for k in range(row["n"]):
                    manager.add_request(row["prompt"], request_id=f"{i}/{k}", max_new_tokens=row["max_tokens"])
            left = sum(row["n"] for row in rows)
            while left:
                found = manager.get_result(timeout=1)
                if found is not None and found.is_finished():
                    answers[int(found.request_id.partition("/")[0])].append(list(found.generated_tokens))
                    left -= 1
                elif found is None and not manager.is_running():
                    raise RuntimeError(
                        "continuous batching stopped before the rows were done; its reason is in the log"
                    )
        return answers


if __name__ == "__main__":
    engine = TransformersEngine()
    wire.serve({"load": engine.load, "run": engine.run})
