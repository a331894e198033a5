"""What the tests of the evaluation share."""

from __future__ import annotations

import pytest

from vss_ros.core.settings import EngineSettings


@pytest.fixture(scope='session')
def subjects(tiny_model):
    """The tiny model, the same without correction, and the same with every frame in full."""
    pytest.importorskip('onnxruntime')
    from vss_ros.evaluation.subjects import load_subjects

    return load_subjects(
        [str(tiny_model)], [EngineSettings(threads=1)], 'model', warp_only=True, per_frame=True
    )
