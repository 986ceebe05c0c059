"""Keys and values in fp8 (e4m3), with a scale for each token and head. Lossy: answers may change.

Half the bytes of 16-bit ones: a pool holds nearly twice the tokens, and decoding reads half as much. No calibration is
needed, as each vector of a head is scaled to the largest number that e4m3 has when it is written; one scale for all, as
is often used, would clip what some models have in their keys.
"""

from __future__ import annotations

import torch

from umbel.kv.scaled import ScaledStore


class Fp8Store(ScaledStore):
    """Keys and values as e4m3."""

    dtype = torch.float8_e4m3fn
