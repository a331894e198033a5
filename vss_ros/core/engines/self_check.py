"""Compares an engine with ONNX Runtime on a few frames of a synthetic street.

Runtimes have been seen to compute a graph wrongly without a word. An engine that was built on this machine
is therefore checked once, graph by graph, against the fp32 graphs on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from vss_ros.core.engines import Engine
from vss_ros.core.errors import EngineError
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.walk import walk
from vss_ros.core.synthetic import StreetClip

FRAMES = 3  # one for each step that a model may have


class Tolerance(NamedTuple):
    """What may differ: the share of labels, floats relative to the largest of their tensor, confidence.

    Steps of confidence, of 255, up to `confidence_steps` do not count as a difference.
    """

    differing_share: float
    relative_error: float
    confidence_steps: int


# fp32 on a GPU multiplies in TF32, which has the 10 bits of fp16 but not its range. Kernels may cut the
# other 13 bits off instead of rounding, which is off up to four times as far.
TOLERANCES = {
    'fp32': Tolerance(0.02, 0.02, 4),
    'fp16': Tolerance(0.02, 0.05, 12),
    'bf16': Tolerance(0.05, 0.15, 24),
    'int8': Tolerance(0.25, 0.40, 64),  # only tells broken from coarse; what it costs, mIoU tells
}


def self_check(model: ModelFolder, engine: Engine, reference: Engine, precision: str) -> dict[str, Any]:
    """Runs every graph of both engines on the same tensors, those of the reference.

    Returns:
        for each graph `passed`, the least share of equal labels (`agreement`), the largest relative error
        of floats (`error`), and what of it was worst (`worst`).
    """
    found: dict[str, Any] = {}
    allowed = TOLERANCES[precision]
    for stage, taken, expected in walk(model, _images(*model.image_size), reference.run):
        given = engine.run(stage, taken)
        for name in model.graphs[stage].outputs:
            array = engine.to_host(given[name])
            blank = {'passed': True, 'agreement': 1.0, 'error': 0.0, 'worst': 'none'}
            _note(found.setdefault(stage, blank), name, expected[name], array, allowed)
    return found


def refuse_failed(results: Mapping[str, Any], model: ModelFolder, what: str, or_else: str = '') -> None:
    """Raises EngineError if a graph did not pass, with its name and by how much.

    Args:
        or_else: what can be done beside using another precision or engine.
    """
    for graph, entry in results.items():
        if not entry['passed']:
            raise EngineError(
                f'{what} computes graph {graph!r} of model {model.name} wrongly: {entry["worst"]} is the '
                f'worst output, {entry["agreement"]:.2%} of the labels agree with ONNX Runtime, floats '
                f'differ by {entry["error"]:.2g} of their range; use another precision or engine'
                + (f', or {or_else}' if or_else else '')
            )


@lru_cache(maxsize=1)  # drawing takes longer than the check
def _images(height: int, width: int) -> list[np.ndarray]:
    return [frame.image for frame in StreetClip(seed=0, frames=FRAMES, height=height, width=width)]


def _note(
    entry: dict[str, Any], name: str, expected: np.ndarray, found: np.ndarray, allowed: Tolerance
) -> None:
    if np.issubdtype(expected.dtype, np.floating):
        scale = max(1.0, float(np.abs(expected).max()))
        error = float(np.abs(expected - found.astype(np.float32)).max()) / scale
        error = error if np.isfinite(error) else 1e9  # JSON has no NaN
        entry['passed'] &= error <= allowed.relative_error
        if error > entry['error']:
            entry |= {'error': error, 'worst': name}
        return
    ignored = allowed.confidence_steps if name == 'confidence' else 0
    steps = np.abs(expected.astype(np.int64) - found.astype(np.int64))
    agreement = float((steps <= ignored).mean())
    entry['passed'] &= 1 - agreement <= allowed.differing_share
    if agreement < entry['agreement']:
        entry |= {'agreement': agreement, 'worst': name}
