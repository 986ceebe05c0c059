"""What a run teaches, kept when it ends: how long its steps took and how long its answers were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.config import EngineConfig
from umbel.cost.history import History
from umbel.cost.known import Known
from umbel.cost.lengths import LengthCurve
from umbel.cost.machine import Machine
from umbel.cost.meter import Meter
from umbel.cost.quantised import price_of
from umbel.engine.build import Model


class Lessons:
    """The history of a loaded model on its machine, read and written where the run's settings say."""

    def __init__(self, model: Model, machine: Machine):
        config: EngineConfig = model.config
        history = History.of(model.spec, model.directory, config.arithmetic, machine, config.threads)
        if config.load_format == "dummy":  # random weights say nothing about how long the model's answers are
            history = replace(history, lengths=None)
        self.history = history
        self._price = price_of(model.spec, config, machine)

    def known(self) -> Known:
        """What earlier runs have taught."""
        return self.history.load()

    def learn(self, meter: Meter, lengths: Mapping[str, LengthCurve]) -> None:
        """Keep what the steps of a run took and how long its answers were, whether it finished or not."""
        self.history.learn_steps(meter.load(), meter.seconds(), self._price.prior())
        self.history.learn_lengths(lengths)
