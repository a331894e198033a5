"""What `vss demo` writes, without the node."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from vss_ros.cli import demo
from vss_ros.cli.demo import _write_results
from vss_ros.cli.main import main
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


@pytest.mark.parametrize('answered', [3, 4])
def test_a_machine_that_was_too_busy_is_named_as_such(tmp_path, monkeypatch, capsys, answered):
    replies = [
        SimpleNamespace(latency_ms=9.0 if number < answered else None, is_complete=number < answered)
        for number in range(8)
    ]
    monkeypatch.setattr(demo, '_check_libraries', lambda: None)
    monkeypatch.setattr(demo, '_drive', lambda *_: (replies, {'dropped': '2'}))
    monkeypatch.setattr(demo, '_write_results', lambda *_: None)
    monkeypatch.setattr(demo, '_table', lambda *_: 'the table')
    assert main(['demo', '--output-dir', str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    message = '3 of 8 images were answered, 2 dropped for a newer one; see'
    assert (message in shown) == (answered == 3)
