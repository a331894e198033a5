"""Proves that an exported model computes what PyTorch computes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vss_ros.core.engines.onnx_runtime import OnnxRuntimeEngine
from vss_ros.core.errors import ModelError, ShapeError
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.steps import WARP_FLOWS, WARPS, flows_and_warped
from vss_ros.core.model.walk import walk
from vss_ros.core.settings import EngineSettings
from vss_ros.core.synthetic import StreetClip
from vss_ros.methods.blocks.warp import warp
from vss_ros.methods.method import Method

FRAMES = 5
TOLERANCE = 2e-3  # of floats, relative to the largest value of the tensor where that is above 1
DIFFERING_SHARE = 1e-3  # of labels and bytes that may differ: near ties fall either way


def example_frames(size: tuple[int, int], count: int = FRAMES) -> list[np.ndarray]:
    """The first frames of a drive through a street, uint8 (H, W, 3) BGR; the same ones every time."""
    return [frame.image for frame in StreetClip(seed=0, frames=count, height=size[0], width=size[1])]


@torch.no_grad()
def verify(method: Method, model: ModelFolder, frames: list[Tensor]) -> dict[str, float]:
    """Runs a key frame and propagated frames through PyTorch and compares every graph with ONNX Runtime.

    Both get PyTorch's tensors at every graph. Left to themselves the two drift apart by right: a near
    tie of two classes may fall either way, and the next frame builds on it.

    Args:
        method: on the CPU, in eval mode.
        frames: uint8 (1, H, W, 3) BGR.
    Returns:
        the largest error of every output tensor as a share of what is allowed, by `graph.tensor`.
    Raises:
        ModelError: an output differs; the message names the graph, the tensor, the error, the tolerance. Or
            a graph `warp` does something else than to warp.
    """
    engine = OnnxRuntimeEngine.load(model, EngineSettings())
    worst: dict[str, float] = {}

    def in_pytorch(graph: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = method.run(graph, {name: torch.from_numpy(array) for name, array in tensors.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    for graph, taken, expected in walk(model, [frame[0].numpy() for frame in frames], in_pytorch):
        if graph in WARPS:
            check_warp(graph, taken, expected)
        found = engine.run(graph, taken)
        for name, array in expected.items():
            error = difference(f'{graph}.{name}', array, engine.to_host(found[name]))
            worst[f'{graph}.{name}'] = max(error, worst.get(f'{graph}.{name}', 0.0))
    return worst


def check_warp(graph: str, taken: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> None:
    """Some engines compute a graph of this name by themselves, so it must do nothing but warp.

    Raises:
        ModelError: it does not give its tensors, each read where the flow points, in the order of its inputs.
    """
    instead = (
        f'Engines compute a graph {graph!r} by themselves, and nothing else in it: it gives each tensor that '
        f'it takes, read where {" or ".join(WARP_FLOWS)} points, in the same order. Do anything else in '
        'another graph, or give this one another name'
    )
    flows, read = flows_and_warped(taken)
    if len(flows) != 1 or len(read) != len(given):
        raise ModelError(f'graph {graph!r} takes {", ".join(taken)} and gives {", ".join(given)}. {instead}')
    for name, output in zip(read, given, strict=True):
        try:
            plain = warp(torch.from_numpy(taken[name]), torch.from_numpy(taken[flows[0]]))
            difference(output, plain.numpy(), given[output])
        except (ModelError, ShapeError) as error:
            raise ModelError(f'{graph}.{output} is not {name}, warped. {instead}') from error


def difference(what: str, expected: np.ndarray, found: np.ndarray) -> float:
    """How far two arrays differ, as a share of what is allowed.

    Floats may differ by TOLERANCE. Of integers DIFFERING_SHARE may differ, one of them in any case; a
    step of one in confidence is rounding and does not count.

    Raises:
        ModelError: type or shape differ, or the share is above 1.
    """
    if expected.shape != found.shape or expected.dtype != found.dtype:
        raise ModelError(
            f'{what} is {found.dtype} {found.shape}; PyTorch gives {expected.dtype} {expected.shape}'
        )
    if np.issubdtype(expected.dtype, np.floating):
        error = float(np.abs(expected - found).max())
        allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
        unit = ''
    else:
        rounding = 1 if what.endswith('.confidence') else 0
        steps = np.abs(expected.astype(np.int64) - found.astype(np.int64))
        error = float((steps > rounding).mean())
        allowed = max(DIFFERING_SHARE, 1 / expected.size)
        unit = ' of its elements'
    if not error <= allowed:  # also where an error is not a number
        raise ModelError(
            f'{what} differs from PyTorch by {error:.3g}{unit}; at most {allowed:.3g} is allowed. '
            'The export is wrong or the weights are not finite'
        )
    return error / allowed
