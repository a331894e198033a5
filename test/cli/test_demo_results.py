"""What `vss demo` writes, without the node."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from vss_ros.cli.demo import _write_results
from vss_ros.core.classes import load_classes
from vss_ros.core.frame import Frame, Segmentation


def test_a_demo_that_is_interrupted_keeps_the_video_of_the_one_before(tmp_path):
    pytest.importorskip('av')
    (tmp_path / 'overlay.mp4').write_bytes(b'whole')

    def answers():
        image = np.zeros((48, 64, 3), np.uint8)
        result = Segmentation(image[..., 0], image[..., 0], True, 0, 0, 0)
        yield SimpleNamespace(frame=Frame(image, 0), segmentation=lambda: result)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _write_results(answers(), load_classes('camvid11'), tmp_path, Console())
    assert (tmp_path / 'overlay.mp4').read_bytes() == b'whole'
    assert os.listdir(tmp_path) == ['overlay.mp4']
