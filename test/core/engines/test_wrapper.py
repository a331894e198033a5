"""An engine around another is one, and a second one of it is around the second one of the other."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vss_ros.core.engines import load_engine
from vss_ros.core.engines.wrapper import EngineWrapper
from vss_ros.core.model.folder import load_model
from vss_ros.core.settings import EngineSettings


class Counted(EngineWrapper):
    def __init__(self, engine):
        super().__init__(engine)
        self.runs = Counter()

    def run(self, graph, tensors):
        self.runs[graph] += 1
        return super().run(graph, tensors)


@pytest.fixture
def engine(tiny_model):
    pytest.importorskip('onnxruntime')
    return load_engine(load_model(tiny_model), EngineSettings('onnxruntime', threads=1))


def test_everything_is_handed_on(engine, street):
    wrapper, image = EngineWrapper(engine), {'image': street[0][None]}
    expected, found = (each.to_host(each.run('segmenter', image)['mask']) for each in (engine, wrapper))
    assert np.array_equal(found, expected)
    assert wrapper.describe() == engine.describe()
    assert (wrapper.name, wrapper.notes) == (engine.name, engine.notes)
    wrapper.close()


def test_the_second_one_of_a_wrapper_is_of_its_kind_and_shares_what_it_holds(engine, street):
    wrapper = Counted(engine)
    second = wrapper.second()
    second.run('segmenter', {'image': street[0][None]})
    assert second is not wrapper
    assert wrapper.runs == {'segmenter': 1}
