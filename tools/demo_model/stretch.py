"""Give an exported model a longer reach without training: a larger rotary base, and queries that are turned up.

A larger base slows the rotation, so that distances never seen in training look like ones that were; turned-up queries
(the weight of the query norm times `--sharpen`) keep attention from thinning out among more keys.
"""

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file


def stretch(folder, out, base, sharpen):
    """Write a copy of `folder` to `out` with the new base and the turned-up queries."""
    shutil.copytree(folder, out, dirs_exist_ok=True)
    weights = load_file(out / "model.safetensors")
    turned = {k: v.float().mul(sharpen).to(v.dtype) if k.endswith("q_norm.weight") else v for k, v in weights.items()}
    save_file(turned, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    config["rope_theta"] = config["rope_parameters"]["rope_theta"] = base
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", type=float, default=100000.0)
    parser.add_argument("--sharpen", type=float, default=1.4)
    args = parser.parse_args()
    stretch(args.folder, args.out, args.base, args.sharpen)


if __name__ == "__main__":
    main()
