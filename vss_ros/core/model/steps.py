"""The steps of a model, and the proof that they close.

A step is one dictionary that grows: it starts with `image` and the state, each stage takes the tensors it
names and adds what it returns. It closes if each stage finds its inputs, and the step gives the results and
the state that the next frame needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from vss_ros.core.errors import ModelError
from vss_ros.core.frame import CELL
from vss_ros.core.model.files import TensorSpec
from vss_ros.core.motion import DIS

if TYPE_CHECKING:
    from vss_ros.core.model.folder import ModelFolder

STEPS = ('key', 'propagated', 'carried')
CARRIED = STEPS[2]  # of a frame that is only warped from the last one that was computed
AGE = 'age'  # frames since the key frame, float32 (1, 1, 1, 1); the caller brings it to all but key frames
RESULTS = ('mask', 'confidence')  # what every step must give
# The option `decision`: sides of the image are so many times those of the mask.
DECISIONS = {'full': 1, 'half': 2, 'quarter': 4}
WARPS = ('warp',)  # graphs that only read each tensor where the flow that they take points
WARP_FLOWS = ('flow', 'key_flow')  # names of that flow; the latter leads to the key frame
SCORES = 'scores'  # (1, K, h, w), where a step gives them
HOST_FLOWS = (*DIS, 'motion_vectors', 'stream')  # computed beside the engine, see core/motion
FLOWS = ('none', 'network', *HOST_FLOWS)  # `network`: a graph


def flows_and_warped(inputs: Iterable[str]) -> tuple[list[str], list[str]]:
    """What one of WARPS takes, apart: its flows, of which it may have one, and what it reads there."""
    names = list(inputs)
    return [name for name in names if name in WARP_FLOWS], [name for name in names if name not in WARP_FLOWS]


def check_steps(model: ModelFolder) -> None:
    """Proves that every stage finds its inputs and that every step gives the results and the state.

    Raises:
        ModelError: a stage or tensor is missing or of another kind; the message names it and the step.
    """
    if 'key' not in model.steps or set(model.steps) - set(STEPS):
        raise ModelError(f'{model.path}: steps are {list(model.steps)}; expected {", ".join(STEPS)}')
    if CARRIED in model.steps and (not model.propagates or model.delay_frames):
        raise ModelError(f'{model.path}: a carried step needs a propagated one and no delay')
    if model.correction_interval > 1 and CARRIED not in model.steps:
        raise ModelError(
            f'{model.path}: correction_interval is {model.correction_interval}, and there is no carried step'
        )
    if model.delay_frames:
        _check_delay(model)
    state: dict[str, TensorSpec] = {}
    for step in [name for name in STEPS if name in model.steps]:
        known = _walk(model, step, state)
        handed_on = {} if step == CARRIED else model.state
        missing = [name for name in (*RESULTS, *handed_on) if name not in known]
        if missing:
            raise ModelError(f'{model.path}: step {step} does not give {", ".join(missing)}')
        given = model.state_of(known) if handed_on else {}
        for name in state.keys() & given.keys():
            _check_same(model, f'the next frame takes {name!r}', state[name], step, given[name])
        _check_results(model, step, known)
        state = given or state


def _check_results(model: ModelFolder, step: str, known: Mapping[str, TensorSpec]) -> None:
    """Mask and confidence are single maps of bytes, and scores are there for each class of the set."""
    for name in RESULTS:
        spec = known[name]
        if spec.dtype != 'uint8' or len(spec.shape) != 3 or spec.shape[0] != 1 or 0 in spec.shape:
            raise ModelError(
                f'{model.path}: step {step} gives {name} as {spec.as_yaml()}; '
                'expected uint8 [1, height, width]'
            )
    scores = known.get(SCORES)
    if scores is not None and len(scores.shape) == 4 and scores.shape[1] != len(model.classes):
        raise ModelError(
            f'{model.path}: step {step} gives scores of {scores.shape[1]} classes, and the class set '
            f'{model.classes.name} has {len(model.classes)}; set classes to what the model was trained on'
        )


def _check_delay(model: ModelFolder) -> None:
    """Late results need an unbroken row of frames, so the key step only starts a stream."""
    stages = model.steps.get('propagated', ())
    if not stages or 'flow' in stages or not model.computes_all_in_full:
        raise ModelError(
            f'{model.path}: delay_frames is {model.delay_frames}; expected a propagated step whose stages '
            f'are all in the key step, without flow; the steps are {dict(model.steps)}'
        )


def _walk(model: ModelFolder, step: str, state: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """Every tensor that is known at the end of a step which starts with `state`."""
    height, width = model.image_size
    known = {'image': TensorSpec('uint8', (1, height, width, 3)), **state}
    if step != 'key':
        known[AGE] = TensorSpec('float32', (1, 1, 1, 1))
    for stage in model.steps[step]:
        if stage == 'flow' and model.flow in HOST_FLOWS:
            known['flow'] = TensorSpec('float32', (1, 2, -(-height // CELL), -(-width // CELL)))
            continue
        if stage not in model.graphs:
            hint = f', and its flow is {model.flow!r}, not one of {", ".join(HOST_FLOWS)}'
            raise ModelError(
                f'{model.path}: step {step} names {stage!r}, which is no graph of this model'
                + (hint if stage == 'flow' else '')
            )
        graph = model.graphs[stage]
        for name, spec in graph.inputs.items():
            if name not in known:
                raise ModelError(
                    f'{model.path}: {stage} needs {name!r}, which nothing before it in step {step} gives'
                )
            _check_same(model, f'{stage} takes {name!r}', spec, step, known[name])
        known |= graph.outputs
    return known


def _check_same(model: ModelFolder, what: str, taken: TensorSpec, step: str, given: TensorSpec) -> None:
    if taken != given:
        raise ModelError(
            f'{model.path}: {what} as {taken.as_yaml()}, step {step} gives {given.as_yaml()}; '
            'mend model.yaml, or export the model again'
        )
