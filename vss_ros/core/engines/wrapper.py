"""An engine around another: what measures or adds to an engine inherits it and changes what it must."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np

from vss_ros.core.engines import Engine, Tensors


class EngineWrapper:
    """An engine that hands everything on to another."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.notes = engine.name, engine.notes

    def run(self, graph: str, tensors: Mapping[str, Any]) -> Tensors:
        return self._engine.run(graph, tensors)

    def to_host(self, tensor: Any) -> np.ndarray:
        return self._engine.to_host(tensor)

    def second(self) -> Engine:
        """The same around the second one of the engine within."""
        second = copy(self)
        second._engine = self._engine.second()
        return second

    def describe(self) -> dict[str, str]:
        return self._engine.describe()

    def close(self) -> None:
        self._engine.close()
