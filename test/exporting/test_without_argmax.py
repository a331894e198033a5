import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from vss_ros.exporting.without_argmax import without_argmax

SHAPE = 2, 5, 3, 4
FLOATS = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16}


def graph(dtype=np.float32, **options):
    """Best classes of scores, as a graph of ArgMax alone gives them."""
    best = helper.make_node('ArgMax', ['scores'], ['best'], **options)
    scores = helper.make_tensor_value_info('scores', FLOATS[dtype], SHAPE)
    shape = ['n', 'classes', 'rows', 'columns'][: 4 if options.get('keepdims', 1) else 3]  # of any length
    output = helper.make_tensor_value_info('best', TensorProto.INT64, shape)
    made = helper.make_graph([best], 'graph', [scores], [output])
    return helper.make_model(made, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)


def run(model, scores):
    return ReferenceEvaluator(model).run(None, {'scores': scores})[0]


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('keepdims', [0, 1])
def test_the_best_classes_are_those_of_argmax_and_of_equals_the_first(dtype, keepdims):
    model = without_argmax(graph(dtype, axis=1, keepdims=keepdims))
    assert 'ArgMax' not in [node.op_type for node in model.graph.node]

    @settings(max_examples=50, deadline=None)
    @given(arrays(dtype, SHAPE, elements=st.sampled_from([-3.5, -0.0, 0.0, 1e-3, 2, np.inf, -np.inf])))
    def holds(scores):
        expected = scores.argmax(1, keepdims=bool(keepdims))
        assert np.array_equal(run(model, scores), expected)

    holds()


def test_scores_that_are_no_numbers_give_a_class_all_the_same():
    scores = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    scores[0, :, 0] = np.nan
    scores[1, 3] = np.nan
    found = run(without_argmax(graph(axis=1)), scores)
    assert found.min() >= 0
    assert found.max() < SHAPE[1]
    assert np.array_equal(found[0, 0, 1:], scores[0, :, 1:].argmax(0))


@pytest.mark.parametrize('options', [{'axis': 2}, {'axis': 1, 'select_last_index': 1}])
def test_an_argmax_that_asks_something_else_stays(options):
    model = without_argmax(graph(**options))
    assert [node.op_type for node in model.graph.node] == ['ArgMax']


def test_each_argmax_of_a_graph_gives_its_own_classes_and_the_other_operators_stay():
    nodes = [
        helper.make_node('Neg', ['scores'], ['negative']),
        helper.make_node('Concat', ['negative', 'scores'], ['more'], axis=1),
        helper.make_node('ReduceMax', ['scores', 'last'], ['rows'], keepdims=0),
        helper.make_node('ArgMax', ['scores'], ['best'], axis=1),
        helper.make_node('ArgMax', ['more'], ['best_of_more'], axis=1),
        helper.make_node('ArgMax', ['rows'], ['best_of_rows'], axis=1, keepdims=0),
    ]
    outputs = {
        'best': (2, 1, 3, 4),
        'best_of_more': (2, 1, 3, 4),
        'best_of_rows': (2, 3),
    }
    made = helper.make_graph(
        nodes,
        'graph',
        [helper.make_tensor_value_info('scores', TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.array([3]), 'last')],
    )
    model = without_argmax(helper.make_model(made, opset_imports=[helper.make_opsetid('', 18)], ir_version=8))
    assert [node.op_type for node in model.graph.node][:3] == ['Neg', 'Concat', 'ReduceMax']
    assert 'ArgMax' not in [node.op_type for node in model.graph.node]
    scores = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    found = ReferenceEvaluator(model).run(None, {'scores': scores})
    more = np.concatenate([-scores, scores], axis=1)
    expected = (scores.argmax(1, keepdims=True), more.argmax(1, keepdims=True), scores.max(3).argmax(1))
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)
