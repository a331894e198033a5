import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper
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
