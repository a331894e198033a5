"""The first run of every graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vss_ros.core import open_segmenter
from vss_ros.core.engines import load_engine
from vss_ros.core.errors import EngineError, ModelError
from vss_ros.core.model.folder import load_model
from vss_ros.core.model.warm_up import warm_up
from vss_ros.core.settings import EngineSettings


class Watched:
    """An engine that remembers which graphs it ran, and fails in one of them."""

    def __init__(self, engine, broken=''):
        self._engine, self._broken = engine, broken
        self.name, self.to_host = engine.name, engine.to_host
        self.ran = []

    def run(self, graph, tensors):
        self.ran.append(graph)
        if graph == self._broken:
            raise EngineError(f'graph {graph!r} cannot be run')
        return self._engine.run(graph, tensors)


@pytest.fixture(scope='module')
def model(tiny_model):
    model = load_model(tiny_model)
    assert {'key', 'propagated', 'carried'} <= set(model.steps)
    return model


def test_every_graph_is_run_whatever_the_schedule_of_a_stream_will_be(model, engine):
    watched = Watched(engine)
    warm_up(model, watched)
    assert set(watched.ran) == set(model.graphs)
    assert watched.ran.count('segmenter') == 1


def test_a_segmenter_is_opened_with_an_engine_that_has_run_every_graph(model, engine, monkeypatch):
    watched = Watched(engine)
    monkeypatch.setattr(open_segmenter, 'load_engine', lambda *_: watched)
    open_segmenter.open_segmenter(model.path)
    assert set(watched.ran) == set(model.graphs)


def test_a_graph_that_cannot_be_run_is_found_before_the_first_frame(model, engine):
    with pytest.raises(EngineError, match="graph 'correction' cannot be run"):
        warm_up(model, Watched(engine, broken='correction'))


@pytest.mark.parametrize('graph', ['segmenter', 'correction'])
@pytest.mark.parametrize(('highest', 'is_refused'), [(10, False), (11, True), (254, True), (255, False)])
def test_a_mask_with_ids_beyond_the_class_set_is_refused(model, engine, graph, highest, is_refused):
    class Marked(Watched):
        def run(self, name, tensors):
            given = super().run(name, tensors)
            if name != graph:
                return given
            mask = np.zeros_like(engine.to_host(given['mask']))
            mask[0, 0, 0] = highest
            return {**given, 'mask': mask}

    if not is_refused:
        warm_up(model, Marked(engine))
        return
    with pytest.raises(
        ModelError, match=f'graph {graph} .* class id {highest}, .*camvid11 has 11, ids 0 to 10'
    ):
        warm_up(model, Marked(engine))


def test_a_class_set_of_fewer_classes_than_the_model_was_trained_on_is_refused():
    model = load_model('camvid-evss-lite')
    classes = replace(model.classes, name='mine', names=model.classes.names[:3])
    with pytest.raises(ModelError, match='set classes to what the model was trained on'):
        warm_up(replace(model, classes=classes), load_engine(model, EngineSettings('onnxruntime')))
