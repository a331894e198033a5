"""Each rule of export catches a graph that breaks it, and nothing else."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vss_ros.core.model.folder import load_model
from vss_ros.exporting.onnx_rules import OPERATORS, broken_rules

FLOAT, HALF, BYTE, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.DOUBLE


def value(name, dtype, *shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def graph(nodes, inputs, outputs, opset=18, constants=(), domains=()):
    made = helper.make_graph(nodes, 'graph', inputs, outputs, list(constants))
    imports = [helper.make_opsetid('', opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(made, opset_imports=imports, ir_version=9)


def segmenter_like():
    """A small graph that keeps every rule: an image in, a mask and scores out."""
    return graph(
        [
            helper.make_node('Cast', ['image'], ['float'], to=FLOAT),
            helper.make_node('Transpose', ['float'], ['planes'], perm=[0, 3, 1, 2]),
            helper.make_node('Relu', ['planes'], ['scores']),
            helper.make_node('ReduceMax', ['scores', 'axes'], ['best'], keepdims=0),
            helper.make_node('Round', ['best'], ['rounded']),
            helper.make_node('Cast', ['rounded'], ['mask'], to=BYTE),
        ],
        [value('image', BYTE, 1, 8, 8, 3)],
        [value('scores', FLOAT, 1, 3, 8, 8), value('mask', BYTE, 1, 8, 8)],
        constants=[numpy_helper.from_array(np.array([1]), 'axes')],
    )


def grid_sample(opset=18, dtype=FLOAT, **mode):
    return graph(
        [helper.make_node('GridSample', ['x', 'grid'], ['y'], padding_mode='border', **mode)],
        [value('x', dtype, 1, 2, 8, 8), value('grid', dtype, 1, 8, 8, 2)],
        [value('y', dtype, 1, 2, 8, 8)],
        opset,
    )


def fp16_around_grid_sample():
    return graph(
        [
            helper.make_node('Cast', ['x'], ['wide'], to=FLOAT),
            helper.make_node('GridSample', ['wide', 'grid'], ['sampled'], mode='bilinear'),
            helper.make_node('Cast', ['sampled'], ['y'], to=HALF),
        ],
        [value('x', HALF, 1, 2, 8, 8), value('grid', FLOAT, 1, 8, 8, 2)],
        [value('y', HALF, 1, 2, 8, 8)],
    )


def softmax(name='Softmax', shape=(1, 3, 8, 8), **axis):
    node = helper.make_node(name, ['x'], ['y'], **axis)
    return graph([node], [value('x', FLOAT, *shape)], [value('y', FLOAT, *shape)])


def resize(**attributes):
    return graph(
        [helper.make_node('Resize', ['x', '', 'scales'], ['y'], **attributes)],
        [value('x', FLOAT, 1, 3, 8, 8)],
        [value('y', FLOAT, 1, 3, 16, 16)],
        constants=[numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), 'scales')],
    )


def image_moved_before_its_cast():
    return graph(
        [
            helper.make_node('Transpose', ['image'], ['planes'], perm=[0, 3, 1, 2]),
            helper.make_node('Cast', ['planes'], ['y'], to=FLOAT),
        ],
        [value('image', BYTE, 1, 8, 8, 3)],
        [value('y', FLOAT, 1, 3, 8, 8)],
    )


def mask_reshaped_after_its_cast():
    return graph(
        [
            helper.make_node('Cast', ['x'], ['bytes'], to=BYTE),
            helper.make_node('Squeeze', ['bytes', 'axes'], ['mask']),
        ],
        [value('x', FLOAT, 1, 1, 8, 8)],
        [value('mask', BYTE, 1, 8, 8)],
        constants=[numpy_helper.from_array(np.array([1]), 'axes')],
    )


def mask_cast_from_integers():
    return graph(
        [
            helper.make_node('ArgMax', ['x'], ['best'], axis=1, keepdims=0),
            helper.make_node('Cast', ['best'], ['mask'], to=BYTE),
        ],
        [value('x', FLOAT, 1, 3, 8, 8)],
        [value('mask', BYTE, 1, 8, 8)],
    )


def labels_handed_through():
    node = helper.make_node('Identity', ['labels'], ['same'])
    return graph([node], [value('labels', BYTE, 1, 1, 8, 8)], [value('same', BYTE, 1, 1, 8, 8)])


def weights_elsewhere():
    model = graph(
        [helper.make_node('Add', ['x', 'w'], ['y'])],
        [value('x', FLOAT, 2)],
        [value('y', FLOAT, 2)],
        constants=[numpy_helper.from_array(np.ones(2, np.float32), 'w')],
    )
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], 'weights.data')
    model.graph.initializer[0].ClearField('raw_data')
    return model


def notes_of_the_exporter(about, as_property):
    """About the model, its graph or a node, as it writes them in one place or the other."""
    model, note = segmenter_like(), 'File "/home/somebody/evss.py", line 12'
    noted = {'model': model, 'graph': model.graph, 'node': model.graph.node[2]}[about]
    if as_property:
        noted.metadata_props.add(key='pkg.torch.onnx.stack_trace', value=note)
    else:
        noted.doc_string = note
    return model


def bytes_cast_to_integers():
    node = helper.make_node('Cast', ['labels'], ['y'], to=TensorProto.INT64)
    return graph([node], [value('labels', BYTE, 1, 8, 8)], [value('y', TensorProto.INT64, 1, 8, 8)])


def image_cast_to_halves():
    node = helper.make_node('Cast', ['image'], ['y'], to=HALF)
    return graph([node], [value('image', BYTE, 1, 8, 8, 3)], [value('y', HALF, 1, 8, 8, 3)])


def short_floats():
    node = helper.make_node('Cast', ['x'], ['y'], to=TensorProto.BFLOAT16)
    return graph([node], [value('x', FLOAT, 4)], [value('y', TensorProto.BFLOAT16, 4)])


def shape_that_is_not_what_the_nodes_give():
    node = helper.make_node('Relu', ['x'], ['y'])
    return graph([node], [value('x', FLOAT, 4)], [value('y', FLOAT, 5)])


def size_known_later():
    node = helper.make_node('Relu', ['x'], ['y'])
    return graph([node], [value('x', FLOAT, 1, 'height')], [value('y', FLOAT, 1, 'height')])


def operator_of_a_vendor(name='FusedMatMul'):
    node = helper.make_node(name, ['x', 'x'], ['y'], domain='com.microsoft')
    square = [value('x', FLOAT, 2, 2)], [value('y', FLOAT, 2, 2)]
    return graph([node], *square, domains=['com.microsoft'])


def shape_that_depends_on_data():
    node = helper.make_node('NonZero', ['x'], ['y'])
    return graph([node], [value('x', FLOAT, 4)], [value('y', TensorProto.INT64, 1, 4)])


def doubles():
    node = helper.make_node('Relu', ['x'], ['y'])
    return graph([node], [value('x', DOUBLE, 4)], [value('y', DOUBLE, 4)])


def weights_in_doubles():
    return graph(
        [helper.make_node('Cast', ['w'], ['y'], to=FLOAT)],
        [],
        [value('y', FLOAT, 2)],
        constants=[numpy_helper.from_array(np.ones(2), 'w')],
    )


def constant_output():
    return graph(
        [helper.make_node('Relu', ['x'], ['y']), helper.make_node('Abs', ['w'], ['still'])],
        [value('x', FLOAT, 2)],
        [value('y', FLOAT, 2), value('still', FLOAT, 2)],
        constants=[numpy_helper.from_array(np.ones(2, np.float32), 'w')],
    )


def unused_input():
    node = helper.make_node('Relu', ['x'], ['y'])
    return graph([node], [value('x', FLOAT, 4), value('image', BYTE, 4)], [value('y', FLOAT, 4)])


def node_without_input():
    node = helper.make_node('Relu', ['nothing'], ['y'])
    return graph([node], [value('x', FLOAT, 4)], [value('y', FLOAT, 4)])


@pytest.mark.parametrize(
    ('model', 'finding'),
    [
        (grid_sample(opset=20, mode='linear'), 'GridSample at opset 20; use 19 or lower'),
        (grid_sample(mode='bicubic'), 'samples bicubic; use bilinear or nearest'),
        (grid_sample(dtype=HALF), 'GridSample shares a graph with fp16'),
        (fp16_around_grid_sample(), 'GridSample shares a graph with fp16'),
        (image_moved_before_its_cast(), 'Transpose takes the uint8 image; cast it to a float first'),
        (mask_reshaped_after_its_cast(), 'Cast makes the uint8 bytes inside the graph'),
        (mask_reshaped_after_its_cast(), 'Squeeze makes the uint8 output mask; it must be a Cast'),
        (mask_cast_from_integers(), 'Cast makes the uint8 output mask; it must be a Cast from a float'),
        (labels_handed_through(), 'Identity takes the uint8 labels'),
        (bytes_cast_to_integers(), 'Cast takes the uint8 labels; cast it to a float first'),
        (softmax(axis=1), 'Softmax over channels'),
        (softmax(axis=-3), 'Softmax over channels'),
        (softmax('LogSoftmax', axis=1), 'LogSoftmax over channels'),
        (resize(mode='cubic'), 'resizes cubic with half_pixel'),
        (
            resize(mode='linear', coordinate_transformation_mode='asymmetric'),
            'resizes linear with asymmetric',
        ),
        (resize(coordinate_transformation_mode='align_corners'), 'resizes nearest with align_corners'),
        (resize(mode='linear', antialias=1), 'resizes with antialiasing'),
        (weights_elsewhere(), 'w lies in another file'),
        *(
            (notes_of_the_exporter(about, as_property), 'it carries notes of the exporter')
            for about in ('model', 'graph', 'node')
            for as_property in (True, False)
        ),
        (size_known_later(), 'x has no fixed shape'),
        (operator_of_a_vendor(), 'com.microsoft:FusedMatMul, which not every runtime'),
        (operator_of_a_vendor('MatMul'), 'com.microsoft:MatMul, which not every runtime'),
        (shape_that_depends_on_data(), 'NonZero, which not every runtime'),
        (doubles(), 'x is DOUBLE'),
        (short_floats(), 'y is BFLOAT16'),
        (weights_in_doubles(), 'w is DOUBLE'),
        (constant_output(), 'output still depends on no input'),
        (unused_input(), 'nothing uses input image'),
        (node_without_input(), 'no valid ONNX graph'),
        (shape_that_is_not_what_the_nodes_give(), 'no valid ONNX graph'),
    ],
)
def test_a_graph_that_breaks_a_rule_is_found(model, finding):
    findings = broken_rules(model)
    assert any(finding in found for found in findings), findings


def test_a_finding_says_where_its_node_comes_from():
    model = softmax(axis=1)
    model.graph.node[0].name = 'node_softmax'
    [finding] = broken_rules(model, {'node_softmax': 'net.3, Softmax'})
    assert finding.startswith('node_softmax (of net.3, Softmax) is a Softmax over channels')


@pytest.mark.parametrize(
    'model',
    [
        segmenter_like(),
        grid_sample(),
        grid_sample(opset=19),
        grid_sample(mode='nearest'),
        softmax(),
        softmax(axis=-1),
        softmax(shape=(1, 3, 8), axis=1),
        image_cast_to_halves(),
        resize(),
        resize(mode='linear'),
        resize(mode='linear', coordinate_transformation_mode='align_corners'),
        resize(mode='linear', coordinate_transformation_mode='pytorch_half_pixel'),
        resize(mode='nearest', coordinate_transformation_mode='asymmetric', nearest_mode='floor'),
    ],
)
def test_a_graph_that_keeps_the_rules_has_no_findings(model):
    assert broken_rules(model) == []


def test_every_allowed_operator_exists_in_the_opset_of_export():
    for name in OPERATORS:
        assert onnx.defs.has(name), name


def test_the_graphs_of_the_tiny_model_keep_the_rules(tiny_model):
    for spec in load_model(tiny_model).graphs.values():
        assert broken_rules(onnx.load(str(spec.file))) == []
