"""The first run of every graph, which is not like the others.

An engine that cannot run a graph fails here, not while a robot drives, and libraries choose their kernels,
take their memory and record their launches here, not in the first frames.
"""

from __future__ import annotations

import numpy as np

from vss_ros.core.engines import Engine
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.walk import walk

FRAMES = 3  # one for each step: key, carried, propagated


def warm_up(model: ModelFolder, engine: Engine) -> None:
    """Runs every step of a model and fetches what it gives.

    Raises:
        EngineError: the engine cannot run a graph.
    """
    grey = np.zeros((*model.image_size, 3), np.uint8)
    for visit in walk(model, FRAMES * [grey], engine.run):
        for name in {'mask', 'confidence'} & set(visit.given):
            engine.to_host(visit.given[name])
