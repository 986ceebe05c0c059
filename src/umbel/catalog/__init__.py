"""The menu: every technique that is built in, whether it is exact, what it needs, where it lives and who found it.

Options, their help, refusals of plans and conformance tests read these rows; what a job says of itself ("all exact",
"lossy: linear fp8") is read from those that its settings take (tests/house/test_catalog.py). Other packages add rows of
their own (umbel.registry).
"""

from __future__ import annotations

from umbel.catalog.device import DEVICE
from umbel.catalog.flowing import FLOWING
from umbel.catalog.forgetting import FORGETTING
from umbel.catalog.keeping import KEEPING
from umbel.catalog.planning import PLANNING
from umbel.catalog.reusing import REUSING
from umbel.catalog.scheduling import SCHEDULING
from umbel.catalog.selecting import SELECTING
from umbel.technique import Technique

CATALOG: tuple[Technique, ...] = PLANNING + SCHEDULING + DEVICE + SELECTING + FORGETTING + FLOWING + REUSING + KEEPING
