"""What counts as computing the same, on a model whose maps are small: labels of 16 x 24 cells."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip('onnxruntime')

from vss_ros.core.engines.onnx_runtime import OnnxRuntimeEngine
from vss_ros.core.engines.self_check import self_check
from vss_ros.core.settings import EngineSettings


class Differing(OnnxRuntimeEngine):
    """Gives another class in the first cells of `labels`."""

    cells = 0

    def run(self, graph, tensors):
        given = super().run(graph, tensors)
        if 'labels' in given:
            labels = given['labels'] = given['labels'].copy()
            labels.flat[: self.cells] += 1
        return given


class Changing(OnnxRuntimeEngine):
    """Changes what the graphs give."""

    def run(self, graph, tensors):
        return {name: self.change(name, array.copy()) for name, array in super().run(graph, tensors).items()}


def results_of(model, change):
    """Whether all graphs passed, and their results."""
    reference, engine = (
        each.load(model, EngineSettings('onnxruntime')) for each in (OnnxRuntimeEngine, Changing)
    )
    engine.change = change
    results = self_check(model, engine, reference, 'fp32')
    return all(entry['passed'] for entry in results.values()), results


@pytest.mark.parametrize(('steps', 'passes'), [(4, True), (5, False)])
def test_small_steps_of_confidence_are_no_difference(model, steps, passes):
    def change(name, array):
        return np.where(array > 127, array - steps, array + steps) if name == 'confidence' else array

    assert results_of(model, change)[0] is passes


def test_floats_that_are_no_numbers_do_not_pass_and_can_be_kept_as_json(model):
    def change(name, array):
        array.flat[:1] = np.nan if np.issubdtype(array.dtype, np.floating) else array.flat[:1]
        return array

    passed, results = results_of(model, change)
    assert not passed
    assert results['segmenter']['worst'] != 'none'
    assert json.loads(json.dumps(results, allow_nan=False)) == results


@pytest.mark.parametrize(('cells', 'passes'), [(0, True), (7, True), (8, False)])  # of 384
def test_two_labels_of_a_hundred_may_differ(model, cells, passes):
    reference = OnnxRuntimeEngine.load(model, EngineSettings('onnxruntime'))
    engine = Differing.load(model, EngineSettings('onnxruntime'))
    engine.cells = cells
    result = self_check(model, engine, reference, 'fp32')['segmenter']
    assert result['passed'] is passes
    assert result['agreement'] == pytest.approx(1 - cells / 384)
