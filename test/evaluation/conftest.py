"""What the tests of the evaluation share."""

from __future__ import annotations

import pytest

from vss_ros.cli.main import main
from vss_ros.core.settings import EngineSettings, StreamSettings


@pytest.fixture(scope='session')
def subjects(tiny_model):
    """The tiny model, the same without correction, and the same with every frame in full."""
    pytest.importorskip('onnxruntime')
    from vss_ros.evaluation.subjects import load_subjects

    return load_subjects(
        [str(tiny_model)], [EngineSettings(threads=1)], StreamSettings(), warp_only=True, per_frame=True
    )


@pytest.fixture(scope='session')
def report(tiny_model, tmp_path_factory):
    """A folder that the command wrote, with two distances and all rows."""
    pytest.importorskip('matplotlib')
    pytest.importorskip('onnx')
    folder = tmp_path_factory.mktemp('evaluation') / 'report'
    words = f'evaluate synthetic:3x4 --model {tiny_model} --warp-only --per-frame --threads 1'
    assert (
        main([*words.split(), '--distances', '0', '2', '--key-frame-interval', '2', '-o', str(folder)]) == 0
    )
    return folder
