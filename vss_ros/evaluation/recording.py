"""Engines that note what is run on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from vss_ros.core.engines import Engine
from vss_ros.core.engines.wrapper import EngineWrapper
from vss_ros.evaluation.variants import WARPED


class Counting(EngineWrapper):
    """Counts the graphs that are run, on a second thread too."""

    def __init__(self, engine: Engine, runs: Counter[str]) -> None:
        super().__init__(engine)
        self._runs = runs

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        self._runs[graph] += 1
        return super().run(graph, tensors)


class Recorder(Counting):
    """Keeps the warped scores that pass by."""

    warped: Any = None

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        outputs = super().run(graph, tensors)
        self.warped = outputs.get(WARPED, self.warped)
        return outputs
