"""The first run of every graph, which is not like the others.

An engine that cannot run a graph fails here, not while a robot drives, and libraries choose their kernels,
take their memory and record their launches here, not in the first frames.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vss_ros.core.engines import Engine
from vss_ros.core.frame import Frame
from vss_ros.core.model_folder import ModelFolder
from vss_ros.core.model_steps import CARRIED, HOST_FLOWS
from vss_ros.core.segmenter import VideoSegmenter
from vss_ros.core.settings import StreamSettings

FRAMES = 3  # one for each step: key, carried, propagated


def warm_up(model: ModelFolder, engine: Engine, settings: StreamSettings) -> None:
    """Runs each step of a model once, whatever schedule the stream will have.

    Raises:
        ModelError: this model cannot be run with the settings.
        EngineError: the engine cannot run a graph.
    """
    flow = model.flow if settings.motion == 'model' else settings.motion
    segmenter = VideoSegmenter(
        model,
        engine,
        replace(
            settings,
            scheduler='fixed',
            key_frame_interval=FRAMES,
            correction_interval=2 if CARRIED in model.steps else 0,
            motion='dis' if flow in HOST_FLOWS else settings.motion,  # others may find no motion in grey
            background_key_frames=False,
        ),
    )
    for stamp_ns in range(FRAMES):
        list(segmenter.answers(Frame(np.zeros((*model.image_size, 3), np.uint8), stamp_ns)))
