"""Move a checkpoint to another tokenizer: known tokens keep their embedding, a new one starts from its nearest kin."""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

EMBEDDING = "model.embed_tokens.weight"


def kin(old, text):
    """Ids in the old tokenizer that a new token's row is averaged from: its other-space form if that is one token."""
    other = text[1:] if text.startswith(" ") else f" {text}"
    ids = old.encode(other, add_special_tokens=False).ids
    return ids if len(ids) == 1 else old.encode(text, add_special_tokens=False).ids


def extended(rows, old, new):
    """Embedding (or optimizer moment) rows [new vocabulary, width] from the old ones."""
    known, out = old.get_vocab(), torch.empty(new.get_vocab_size(), rows.shape[1])
    for token, i in new.get_vocab().items():
        ids = [known[token]] if token in known else kin(old, new.decode([i]))
        out[i] = rows[ids].mean(0)
    return out


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder with checkpoint.safetensors and the old tokenizer")
    parser.add_argument("tokenizer", type=Path, help="folder with the new tokenizer")
    parser.add_argument("out", type=Path, help="folder of the new run")
    args = parser.parse_args()
    old, new = (Tokenizer.from_file(str(p / "tokenizer.json")) for p in (args.run, args.tokenizer))
    tensors = load_file(args.run / "checkpoint.safetensors")
    for prefix in ("model.model.", "opt.m.model.", "opt.v.model."):
        name = prefix + EMBEDDING.removeprefix("model.")
        tensors[name] = extended(tensors[name], old, new)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out / "checkpoint.safetensors")
    state = json.loads((args.run / "state.json").read_text())
    (args.out / "state.json").write_text(json.dumps(state | {"retokenized_at": state["step"]}) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(args.tokenizer / name, args.out / name)
    print(f"{old.get_vocab_size()} -> {new.get_vocab_size()} entries")


if __name__ == "__main__":
    main()
