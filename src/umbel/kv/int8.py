"""Keys and values in int8, with a scale for each token and head. Lossy: answers may change.

Half the bytes of 16-bit ones, as with fp8, in 255 equal steps up to the largest number of a vector (as Atom has them,
2310.19102, in fewer bits): finer than e4m3 for all but the smallest numbers, and a processor widens them in few
instructions. No calibration is needed, as each vector of a head is scaled when it is written.
"""

from __future__ import annotations

import torch

from umbel.kv.scaled import ScaledStore


class Int8Store(ScaledStore):
    """Keys and values as int8."""

    dtype = torch.int8
