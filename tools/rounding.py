"""How far bfloat16 moves the best token, ours beside transformers' own two ways.

`python -m tools.rounding [--keep] [case...]`

Over random tokens, at the positions whose best token is beyond doubt (the logits of transformers' eager attention move
by less in bfloat16 than the best one leads by in float32): how often ours is the best one in bfloat16, and how often
that of transformers' other attention, `sdpa`, is. The two differ in the order of their sums only, so the second share
is what a model's own noise leaves of any way to compute it: experts change hands at the last bit of a score.

`--keep` puts what was found into tests/models/rounding_figures.json, for docs/model_types.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tools.zoo import TYPES, make

from tests.models.dense import dense_logits
from tests.models.types_doc import ROUNDING
from tests.models.zoo import sum_token_by_token
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec
from umbel.models.weights import StoredWeights

ROWS, LENGTH = 40, 128


@dataclass(frozen=True)
class Rounded:
    """Positions whose best token is beyond doubt, and at how many it is ours and that of transformers' `sdpa`; then, of
    `positions` in all, at how many each of the three ways has the best token of float32."""

    clear: int
    ours: int
    sdpa: int
    positions: int
    ours_of_all: int
    sdpa_of_all: int
    eager_of_all: int


@torch.inference_mode()
def compared(name: str, directory: Path) -> Rounded:
    """The figures of one case, whose model is written into `directory`."""
    wide = make(name, directory)
    eager, sdpa = (_narrow(directory, attention) for attention in ("eager", "sdpa"))
    wide.load_state_dict(eager.state_dict())
    spec = read_spec(directory)
    decoder = Decoder(spec, StoredWeights(directory, spec, torch.bfloat16))
    torch.manual_seed(0)
    parts = list[list[torch.Tensor]]()
    for _ in range(ROWS):
        ids = torch.randint(3, spec.vocab_size, (LENGTH,)).tolist()
        truth, by_eager, by_sdpa = (model(torch.tensor([ids])).logits[0].float() for model in (wide, eager, sdpa))
        first, second = truth.topk(2).values.T
        clear = first - second > (by_eager - truth).abs().amax(1)
        ways = (dense_logits(decoder, ids).float(), by_sdpa, by_eager)
        parts.append([clear, *(way.argmax(1) == truth.argmax(1) for way in ways)])
    clear, *right = (torch.cat(part) for part in zip(*parts, strict=True))
    beyond_doubt = [int(way[clear].sum()) for way in right[:2]]
    return Rounded(int(clear.sum()), *beyond_doubt, len(clear), *(int(way.sum()) for way in right))


def _narrow(directory: Path, attention: str) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.bfloat16, attn_implementation=attention
    ).eval()


def keep(kind: str, figures: Rounded) -> None:
    """Put the figures of a type beside those of others."""
    kept = json.loads(ROUNDING.read_text()) if ROUNDING.exists() else {}
    kept[kind] = asdict(figures)
    ROUNDING.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=TYPES, metavar="case")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    with pytest.MonkeyPatch.context() as patch:
        sum_token_by_token(patch)
        for name in asked.names:
            with tempfile.TemporaryDirectory() as directory:
                figures = compared(name, Path(directory))
            print(f"{name}: {figures}", flush=True)
            if asked.keep:
                keep(TYPES[name], figures)


if __name__ == "__main__":
    main()
