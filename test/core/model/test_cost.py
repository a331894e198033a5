import json
import struct
from pathlib import Path

import numpy as np
import pytest

from vss_ros.core.errors import ModelError
from vss_ros.core.model.cost import cost_of, count_parameters, graph_costs, step_macs
from vss_ros.core.model.folder import load_model

onnx = pytest.importorskip('onnx')
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper
DATA = Path(__file__).parents[2] / 'data'


def graph_file(path, operator, image, weights, output, **attributes):
    """Writes an ONNX graph of one node."""
    node = helper.make_node(operator, ['x', 'w'], ['y'], **attributes)
    graph = helper.make_graph(
        [node],
        'one',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, output)],
        [numpy_helper.from_array(np.zeros(weights, np.float32), 'w')],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)]), path)
    return path


@pytest.mark.parametrize(
    ('operator', 'image', 'weights', 'output', 'attributes', 'expected'),
    [
        (
            'Conv',
            (1, 3, 8, 8),
            (16, 3, 3, 3),
            (1, 16, 4, 4),
            {'strides': [2, 2], 'pads': [1] * 4},
            16 * 16 * 27,
        ),
        ('Conv', (1, 6, 8, 8), (6, 1, 3, 3), (1, 6, 6, 6), {'group': 6}, 6 * 36 * 9),
        ('ConvTranspose', (1, 5, 4, 4), (5, 7, 4, 4), (1, 7, 10, 10), {'strides': [2, 2]}, 5 * 16 * 7 * 16),
        ('MatMul', (2, 3, 5), (5, 7), (2, 3, 7), {}, 2 * 3 * 7 * 5),
        ('Gemm', (5, 3), (5, 7), (3, 7), {'transA': 1}, 3 * 7 * 5),
        ('Add', (4, 4), (4, 4), (4, 4), {}, 0),
    ],
)
def test_multiply_adds_are_those_worked_out_by_hand(
    tmp_path, operator, image, weights, output, attributes, expected
):
    file = graph_file(tmp_path / 'graph.onnx', operator, image, weights, output, **attributes)
    assert cost_of(file).macs == expected


def test_a_graph_without_static_shapes_is_refused(tmp_path):
    file = graph_file(tmp_path / 'graph.onnx', 'Conv', (1, 3, 'h', 'w'), (4, 3, 1, 1), (1, 4, 'h', 'w'))
    with pytest.raises(ModelError, match='has no static shape, so its work is not known'):
        cost_of(file)


def test_a_size_that_is_worked_out_on_the_way_is_static(tmp_path):
    """Shape, Slice, Concat, Resize: how many networks enlarge their maps to the size of the image."""
    constants = {'first': [0], 'last': [2], 'to': np.int64([8, 8]), 'w': np.zeros((4, 3, 1, 1), np.float32)}
    nodes = [
        helper.make_node('Shape', ['x'], ['shape']),
        helper.make_node('Slice', ['shape', 'first', 'last'], ['batch']),
        helper.make_node('Concat', ['batch', 'to'], ['size'], axis=0),
        helper.make_node('Resize', ['x', '', '', 'size'], ['large']),
        helper.make_node('Conv', ['large', 'w'], ['y']),
    ]
    values = [
        helper.make_tensor_value_info('x', TensorProto.FLOAT, (1, 3, 4, 4)),
        helper.make_tensor_value_info('y', TensorProto.FLOAT, (1, 4, 8, 8)),
    ]
    given = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, 'enlarge', values[:1], values[1:], given)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)]), tmp_path / 'enlarge.onnx'
    )
    assert cost_of(tmp_path / 'enlarge.onnx').macs == 64 * 3 * 4


def test_a_propagated_step_of_a_model_costs_less_than_a_key_step(tiny_model):
    model = load_model(tiny_model)
    macs = step_macs(model.steps, graph_costs(model))
    assert 0 < macs['propagated'] < macs['key']


def test_parameters_are_counted_as_pytorch_counts_them(tiny_model):
    from vss_ros.exporting.weights import load_method

    model = load_model(tiny_model)
    assert model.weights is not None
    expected = sum(parameter.numel() for parameter in load_method(model).parameters())
    assert count_parameters(model.weights) == expected


@pytest.mark.parametrize(
    ('file', 'expected'), [('evss_keys.json', 24_630_197), ('evss_keys_camvid.json', 24_628_661)]
)
def test_of_published_weights_of_evss_only_those_that_learn_are_counted(tmp_path, file, expected):
    shapes = json.loads((DATA / file).read_text())
    header = {name: {'shape': shape} for name, shape in shapes.items() if not name.startswith('resnet.')}
    text = json.dumps(header).encode()
    (tmp_path / 'w.safetensors').write_bytes(struct.pack('<Q', len(text)) + text)
    assert count_parameters(tmp_path / 'w.safetensors') == expected


@pytest.mark.parametrize(
    'content',
    [
        b'',
        struct.pack('<Q', 1 << 60),
        struct.pack('<Q', 9) + b'{"a": 3}',
        struct.pack('<Q', 4) + b'null',
        struct.pack('<Q', 30) + json.dumps({'a': {}}).encode(),
    ],
)
def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path, content):
    (tmp_path / 'w.safetensors').write_bytes(content)
    with pytest.raises(ModelError, match=r'w\.safetensors is no safetensors file'):
        count_parameters(tmp_path / 'w.safetensors')
