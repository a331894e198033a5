"""What many tests of the core share."""

from __future__ import annotations

import pytest

from vss_ros.core.engines import load_engine
from vss_ros.core.model.folder import load_model
from vss_ros.core.settings import EngineSettings


@pytest.fixture(scope='module')
def model(tiny_model):
    return load_model(tiny_model)


@pytest.fixture(scope='module')
def engine(model):
    return load_engine(model, EngineSettings('onnxruntime'))
