"""A model over frames, stage by stage, with flow and state: the way that checks and calibration take.

A stream proper is `VideoSegmenter`; here every stage is seen with what it took and what it gave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.steps import AGE, CARRIED
from vss_ros.core.motion import make_motion

Run = Callable[[str, dict[str, Any]], Mapping[str, Any]]


class Visit(NamedTuple):
    """One stage at one frame: the tensors it took and those it gave, by name."""

    stage: str
    taken: dict[str, Any]
    given: Mapping[str, Any]


def walk(model: ModelFolder, images: Iterable[np.ndarray], run: Run, key_every: int = 0) -> Iterator[Visit]:
    """Runs the steps of a model over frames that follow each other.

    The first frame is a key frame, the others are propagated if the model propagates; every other one of
    these is carried if the model has such a step. Flow that the host must bring is DIS, whoever brings it
    later: what counts is that the vectors are real.

    Args:
        images: uint8 (H, W, 3) BGR, of the model's size.
        run: runs a graph on the tensors it takes and gives its outputs, as `Engine.run` does.
        key_every: a key frame again after so many frames, 0 for the first frame only. Where the key step does
            all of the propagated one and more, it only starts a stream, and this does not count.
    """
    needs_flow = 'flow' not in model.graphs and any('flow' in stages for stages in model.steps.values())
    motion = make_motion('dis') if needs_flow else None
    state: dict[str, Any] = {}
    age = 0
    for number, image in enumerate(images):
        again = key_every > 0 and not model.computes_all_in_full and number % key_every == 0
        is_key = number == 0 or again or not model.propagates
        age = 0 if is_key else age + 1
        step = 'key' if is_key else CARRIED if age % 2 and CARRIED in model.steps else 'propagated'
        tensors: dict[str, Any] = {'image': image[None], AGE: age_tensor(age), **state}
        if motion is not None:
            flow = motion.update(image, wanted=not is_key, stays=step == CARRIED)
            if flow is not None:
                tensors['flow'] = flow
        for stage in model.steps[step]:
            if stage not in model.graphs:
                continue
            taken = {name: tensors[name] for name in model.graphs[stage].inputs}
            given = run(stage, taken)
            yield Visit(stage, taken, given)
            tensors |= given
        if step != CARRIED:
            state = model.state_of(tensors)


def age_tensor(frames: int) -> np.ndarray:
    """Frames since the key frame, as graphs take them under the name AGE."""
    return np.full((1, 1, 1, 1), frames, np.float32)
