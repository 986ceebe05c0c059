"""Turn a checkpoint into a bf16 Hugging Face folder."""

import argparse
import json
import shutil
from pathlib import Path

import shapes
import torch
from safetensors.torch import load_file, save_file


def config_of(size, base=shapes.BASE):
    """config.json as a dict, with the rope base spelled the old and the new way."""
    config = json.loads(shapes.fresh(size, base=base).config.to_json_string(use_diff=False))
    keep = (
        "architectures",
        "attention_bias",
        "attention_dropout",
        "bos_token_id",
        "eos_token_id",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "initializer_range",
        "intermediate_size",
        "max_position_embeddings",
        "model_type",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "pad_token_id",
        "rms_norm_eps",
        "rope_parameters",
        "tie_word_embeddings",
        "use_cache",
        "vocab_size",
    )
    kept = {k: config[k] for k in keep}
    return kept | {
        "rope_theta": kept["rope_parameters"]["rope_theta"],
        "torch_dtype": "bfloat16",
    }


def export(run, out):
    """Write config, generation config, weights and tokenizer of the run's checkpoint."""
    state = json.loads((run / "state.json").read_text())
    out.mkdir(parents=True, exist_ok=True)
    saved = load_file(run / "checkpoint.safetensors")
    weights = {k[6:]: v.to(torch.bfloat16) for k, v in saved.items() if k.startswith("model.")}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    (out / "config.json").write_text(
        json.dumps(config_of(state["size"], state.get("base", shapes.BASE)), indent=2) + "\n"
    )
    generation = {"do_sample": False, "eos_token_id": [2, 0], "pad_token_id": 3}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(run / name, out / name)
    return state


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    print(json.dumps(export(args.run, args.out)))


if __name__ == "__main__":
    main()
