"""Rules that keep an ONNX file right in every runtime, TensorRT included, checked on the file itself.

Most are there because a runtime does not refuse the other form but computes something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx import TensorProto, helper

MAX_OPSET_WITH_GRID_SAMPLE = 19  # from 20 on its modes have names that TensorRT takes for `nearest`
RESIZE_FORMS = {
    'linear': ('half_pixel', 'pytorch_half_pixel', 'align_corners'),
    'nearest': ('half_pixel', 'asymmetric'),
}
# What TensorRT 10 and 11, ONNX Runtime and OpenVINO all have; control flow and data-dependent shapes
# are not among them. Add an operator after looking it up in the runtimes' lists.
_NAMES = """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant Conv ConvTranspose Div
    Equal Erf Exp Expand Flatten Floor Gather Gelu Gemm GlobalAveragePool Greater GreaterOrEqual GridSample
    HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax MatMul Max MaxPool Min Mul Neg Not Or PRelu Pad Pow Reciprocal ReduceL2 ReduceMax ReduceMean
    ReduceMin ReduceSum Relu Reshape Resize Round Sigmoid Sign Slice Softmax Softplus Split Sqrt Squeeze
    Sub Sum Tanh Tile Transpose Unsqueeze Where
"""
OPERATORS = frozenset(_NAMES.split())
INSTEAD = {  # of operators that come from what many networks have
    'DepthToSpace': 'in place of PixelShuffle use reshape and permute, or resize',
    'SpaceToDepth': 'in place of PixelUnshuffle use reshape and permute',
    'GatherND': 'in place of adaptive pooling to a grid use avg_pool2d with fixed tiles',
    'Dropout': 'use nn.Dropout, which does nothing in eval mode',
    'Mish': 'use x * tanh(softplus(x))',
}
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def broken_rules(model: onnx.ModelProto, origins: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with a graph, one sentence per finding; empty if it keeps every rule.

    Args:
        origins: names of nodes, and where they come from, for the sentences.
    """
    findings = list(_files(model))
    if findings:
        return findings  # the checker would look for the other file
    try:
        onnx.checker.check_model(model)
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return [f'it is no valid ONNX graph: {error}']
    graph = _Graph(model, origins or {})
    rules = (_operators, _connections, _shapes, _bytes, _precision, _grid_samples, _softmax, _resizes)
    return [finding for rule in rules for finding in rule(graph)]


class _Graph:
    """An ONNX model with what the rules ask about."""

    def __init__(self, model: onnx.ModelProto, origins: Mapping[str, str]) -> None:
        self.model = model
        self.origins = origins
        self.nodes = model.graph.node
        self.inputs = [value.name for value in model.graph.input]
        self.outputs = {value.name for value in model.graph.output}
        values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
        self.dtypes = {value.name: value.type.tensor_type.elem_type for value in values}
        self.dtypes |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        self.ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}

    def name(self, node: onnx.NodeProto) -> str:
        """The name of a node, and where it comes from."""
        origin = self.origins.get(node.name)
        return f'{node.name} (of {origin})' if origin else node.name

    def having(self, *operators: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type in operators]


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _files(model: onnx.ModelProto) -> Iterator[str]:
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield f'{tensor.name} lies in another file; its sha256 would not be checked'
    for noted in (model, model.graph, *model.graph.node):
        if noted.metadata_props or noted.doc_string:
            yield 'it carries notes of the exporter, which name files of the machine it was made on'
            return


def _operators(graph: _Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.domain not in ('', 'ai.onnx') or node.op_type not in OPERATORS:
            name = f'{node.domain}:{node.op_type}'.lstrip(':')
            instead = f'; {INSTEAD[name]}' if name in INSTEAD else ''
            yield f'{graph.name(node)} is a {name}, which not every runtime is known to have{instead}'


def _connections(graph: _Graph) -> Iterator[str]:
    """Some runtimes do not give constants, or take what is of no use."""
    reached, used = set(graph.inputs), set[str]()
    for node in graph.nodes:  # in running order
        used.update(node.input)
        if not reached.isdisjoint(node.input):
            reached.update(node.output)
    for value in graph.model.graph.output:
        if value.name not in reached:
            yield (
                f'output {value.name} depends on no input, and not every runtime gives constants; make it of '
                'an input, such as 1 + 0 * input, or make it where it is used'
            )
    for name in graph.inputs:
        if name not in used:
            yield f'nothing uses input {name}; leave it out of the parameters of the graph'


def _shapes(graph: _Graph) -> Iterator[str]:
    for value in (*graph.model.graph.input, *graph.model.graph.output):
        tensor = value.type.tensor_type
        if not tensor.HasField('shape') or any(d.dim_value < 1 for d in tensor.shape.dim):
            yield f'{value.name} has no fixed shape'


def _bytes(graph: _Graph) -> Iterator[str]:
    """TensorRT takes uint8 only at the border, and converts it only from and to floats."""
    is_byte = {name for name, dtype in graph.dtypes.items() if dtype == TensorProto.UINT8}
    for node in graph.nodes:
        for name in is_byte.intersection(node.input):
            if node.op_type != 'Cast' or _attribute(node, 'to', 0) not in FLOATS:
                yield f'{node.op_type} takes the uint8 {name}; cast it to a float first'
        for name in is_byte.intersection(node.output):
            if name not in graph.outputs:
                yield f'{node.op_type} makes the uint8 {name} inside the graph; only outputs may be uint8'
            elif node.op_type != 'Cast' or graph.dtypes.get(node.input[0]) not in FLOATS:
                yield f'{node.op_type} makes the uint8 output {name}; it must be a Cast from a float'


def _precision(graph: _Graph) -> Iterator[str]:
    for name, dtype in graph.dtypes.items():
        if dtype in (TensorProto.DOUBLE, TensorProto.BFLOAT16):
            yield f'{name} is {TensorProto.DataType.Name(dtype)}, which not every runtime has'


def _grid_samples(graph: _Graph) -> Iterator[str]:
    """TensorRT computes GridSample wrongly, without a word, in each of these cases."""
    samples = graph.having('GridSample')
    if not samples:
        return
    opset = max(entry.version for entry in graph.model.opset_import if entry.domain in ('', 'ai.onnx'))
    if opset > MAX_OPSET_WITH_GRID_SAMPLE:
        yield f'it has GridSample at opset {opset}; use {MAX_OPSET_WITH_GRID_SAMPLE} or lower'
    if TensorProto.FLOAT16 in graph.dtypes.values():
        yield 'GridSample shares a graph with fp16; give it an fp32 graph of its own'
    for node in samples:
        if _attribute(node, 'mode', 'bilinear') not in ('bilinear', 'nearest'):
            yield f'{graph.name(node)} samples {_attribute(node, "mode", "")}; use bilinear or nearest'


def _softmax(graph: _Graph) -> Iterator[str]:
    for node in graph.having('Softmax', 'LogSoftmax'):
        rank = graph.ranks.get(node.input[0], 0)
        if rank == 4 and _attribute(node, 'axis', -1) % rank == 1:
            yield (
                f'{graph.name(node)} is a {node.op_type} over channels, 10 times slower than '
                '1 / sum(exp(x - max)), which `decided` of a method computes'
            )


def _resizes(graph: _Graph) -> Iterator[str]:
    for node in graph.having('Resize'):
        mode = _attribute(node, 'mode', 'nearest')
        form = _attribute(node, 'coordinate_transformation_mode', 'half_pixel')
        if form not in RESIZE_FORMS.get(mode, ()):
            yield (
                f'{graph.name(node)} resizes {mode} with {form}; not every runtime has that; '
                'use `resize` of methods/blocks'
            )
        if _attribute(node, 'antialias', 0):
            yield f'{graph.name(node)} resizes with antialiasing; not every runtime has that'
