"""What counts as computing the same, on a model whose maps are small: labels of 16 x 24 cells."""

from __future__ import annotations

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


@pytest.mark.parametrize(('cells', 'passes'), [(0, True), (3, True), (4, False)])
def test_three_cells_may_differ_where_they_are_more_than_the_share(model, cells, passes):
    reference = OnnxRuntimeEngine.load(model, EngineSettings('onnxruntime'))
    engine = Differing.load(model, EngineSettings('onnxruntime'))
    engine.cells = cells
    result = self_check(model, engine, reference, 'fp32')['segmenter']
    assert result['passed'] is passes
    assert result['agreement'] == pytest.approx(1 - cells / 384)
