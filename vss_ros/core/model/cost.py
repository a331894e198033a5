"""What a model costs: multiply-adds and parameters, read from its files."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vss_ros.core.errors import MissingLibraryError, ModelError
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.steps import HOST_FLOWS
from vss_ros.core.settings import StreamSettings

# Not learnt: what norms keep, and two constants in the published weights of EVSS.
BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked', 'img_mean', 'img_std')
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself

Shape = tuple[int, ...]


class Cost(NamedTuple):
    """What one run of a graph costs at least.

    Attributes:
        macs: multiply-adds; one multiply and its add count as one.
        values: numbers that its convolutions and products read and write, each of them once.
    """

    macs: int
    values: int


def cost_of(file: Path) -> Cost:
    """What one run of an ONNX graph costs at least.

    Convolution: output values x weights per output channel. Transposed convolution: input values x
    weights per input channel. MatMul and Gemm: output values x length of the sum. Nothing else counts:
    no biases, norms, activations, resizes, pooling or warps. A matrix product that stands for pooling
    does count.

    Raises:
        MissingLibraryError: onnx is not installed, or cannot be loaded.
        ModelError: a shape that is needed is not static.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingLibraryError('onnx', 'train', cause=error) from error

    graph = onnx.shape_inference.infer_shapes(onnx.load(str(file)), data_prop=True).graph
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        dimensions = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(size.dim_value for size in dimensions)
    for node in graph.node:
        if node.op_type == 'Constant':
            value = onnx.helper.get_attribute_value(node.attribute[0])
            if isinstance(value, onnx.TensorProto):
                shapes[node.output[0]] = tuple(value.dims)
    total, values = 0, 0
    for node in graph.node:
        if (rule := _RULES.get(node.op_type)) is None:
            continue
        names = (node.input[0], node.input[1], node.output[0])
        if any(0 in shapes.get(name, (0,)) for name in names):
            raise ModelError(
                f'{file}: {node.op_type} {node.name} has no static shape, so its work is not known'
            )
        transposed = any(entry.name == 'transA' and entry.i for entry in node.attribute)
        left, right, output = (shapes[name] for name in names)
        total += rule(left, right, output, transposed)
        values += sum(math.prod(shape) for shape in (left, right, output))
    return Cost(total, values)


def graph_costs(model: ModelFolder) -> dict[str, Cost]:
    """What one run of each graph of a model costs at least; raises what `cost_of` does."""
    return {name: cost_of(graph.file) for name, graph in model.graphs.items()}


def frame_costs(costs: Mapping[str, Cost], model: ModelFolder, settings: StreamSettings) -> dict[str, Cost]:
    """What each graph that runs costs a frame of a stream, in all its regions together.

    Args:
        costs: see `graph_costs`.
    """
    regions = settings.region_count
    flow_is_brought = model.flow_of(settings.motion) in HOST_FLOWS  # so the flow network does not run
    return {
        name: Cost(regions * macs, regions * values)
        for name, (macs, values) in costs.items()
        if name != 'flow' or not flow_is_brought
    }


def step_macs(steps: Mapping[str, Sequence[str]], costs: Mapping[str, Cost]) -> dict[str, int]:
    """Multiply-adds of each step; stages that run on the host have no cost here.

    Args:
        steps: the stages of each, see `ModelFolder`.
        costs: of the graphs.
    """
    return {
        step: sum(costs[stage].macs for stage in stages if stage in costs) for step, stages in steps.items()
    }


def count_parameters(weights: Path) -> int:
    """Learnt values in a safetensors file, from its header alone.

    Raises:
        ModelError: it is no safetensors file.
    """
    try:
        with weights.open('rb') as stream:
            (length,) = struct.unpack('<Q', stream.read(8))
            if length > MAX_HEADER:
                raise ValueError(f'its header would be {length} bytes long')
            header = json.loads(stream.read(length))
        return sum(
            math.prod(entry['shape'])
            for name, entry in header.items()
            if name != '__metadata__' and name.rpartition('.')[2] not in BUFFERS
        )
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f'{weights} is no safetensors file: {error}') from error


def _product(left: Shape, _: Shape, output: Shape, is_transposed: bool) -> int:
    return math.prod(output) * left[-2 if is_transposed else -1]


_RULES: dict[str, Callable[[Shape, Shape, Shape, bool], int]] = {
    'Conv': lambda _, weights, output, __: math.prod(output) * math.prod(weights[1:]),
    'ConvTranspose': lambda image, weights, _, __: math.prod(image) * math.prod(weights[1:]),
    'MatMul': _product,
    'Gemm': _product,
}
