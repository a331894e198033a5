"""The class of each pixel without ArgMax, which TensorRT makes a TopK of.

At the size of an image its TopK has taken tens of milliseconds, more than the network before it
(onnx-tensorrt issues 669, 671; TensorRT issue 4403). Comparing each score with the largest one reads them
once more. On a CPU ArgMax is faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 1  # the axis


def without_argmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replaces each ArgMax over channels by operators that give the same, of equals the first.

    Where scores are no numbers, some class comes out. ArgMax over other axes stays.

    Args:
        model: with fixed shapes.
    """
    shapes = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type for value in (*shapes.input, *shapes.output, *shapes.value_info)
    }
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        options = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        is_meant = options.get('axis') == CHANNELS and not options.get('select_last_index')
        if node.op_type == 'ArgMax' and is_meant:
            nodes += _compared(node, types[node.input[0]], options.get('keepdims', 1), model.graph)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def _compared(
    node: onnx.NodeProto, scores: onnx.TypeProto.Tensor, keepdims: int, graph: onnx.GraphProto
) -> Iterator[onnx.NodeProto]:
    """What an ArgMax becomes: of all that are not below the largest, the one with the highest rank."""
    name, dtype = node.output[0], helper.tensor_dtype_to_np_dtype(scores.elem_type)
    sides = len(scores.shape.dim)
    classes = scores.shape.dim[CHANNELS].dim_value
    ranks = np.arange(classes, 0, -1, dtype=dtype).reshape(-1, *[1] * (sides - CHANNELS - 1))
    constants = {
        'axes': np.array([CHANNELS]),
        'ranks': ranks,
        'none': np.array(0, dtype),
        'classes': np.array(classes, dtype),
    }
    named = {key: f'{name}_{key}' for key in constants}
    graph.initializer.extend(numpy_helper.from_array(array, named[key]) for key, array in constants.items())

    def step(operator: str, inputs: list[str], output: str, **options: Any) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [output], name=f'{output}_node', **options)

    yield step('ReduceMax', [node.input[0], named['axes']], f'{name}_best', keepdims=1)
    yield step('Less', [node.input[0], f'{name}_best'], f'{name}_below')
    yield step('Where', [f'{name}_below', named['none'], named['ranks']], f'{name}_ranked')
    yield step('ReduceMax', [f'{name}_ranked', named['axes']], f'{name}_rank', keepdims=keepdims)
    yield step('Sub', [named['classes'], f'{name}_rank'], f'{name}_index')
    yield step('Cast', [f'{name}_index'], name, to=TensorProto.INT64)
