"""The first run of every graph, which is not like the others.

An engine that cannot run a graph fails here, not while a robot drives, and libraries choose their kernels,
take their memory and record their launches here, not in the first frames.
"""

from __future__ import annotations

import numpy as np

from vss_ros.core.engines import Engine
from vss_ros.core.errors import ModelError
from vss_ros.core.frame import UNLABELLED
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.walk import walk

FRAMES = 3  # one for each step: key, carried, propagated


def warm_up(model: ModelFolder, engine: Engine) -> None:
    """Runs every step of a model, fetches what it gives and looks at the ids in the masks.

    What is in a black image is not all that a model can find: a class set that lacks few classes of many may
    pass.

    Raises:
        EngineError: the engine cannot run a graph.
        ModelError: a mask has ids beyond the class set.
    """
    black = np.zeros((*model.image_size, 3), np.uint8)
    for visit in walk(model, FRAMES * [black], engine.run):
        for name in {'mask', 'confidence'} & set(visit.given):
            found = engine.to_host(visit.given[name])
            if name == 'mask':
                _check_ids(model, visit.stage, found)


def _check_ids(model: ModelFolder, graph: str, mask: np.ndarray) -> None:
    highest = int(np.max(mask, where=mask != UNLABELLED, initial=0))
    if highest >= len(model.classes):
        raise ModelError(
            f'{model.path}: graph {graph} gives a mask with the class id {highest}, and the class set '
            f'{model.classes.name} has {len(model.classes)}, ids 0 to {len(model.classes) - 1}; set classes '
            'to what the model was trained on'
        )
