"""Outputs on a disk that is full, played by the limit on the size of a file."""

import os
import resource
import signal
from contextlib import contextmanager

import numpy as np
import pytest

from vss_ros.core.classes import load_classes
from vss_ros.core.frame import Frame, Segmentation
from vss_ros.core.sinks.open import open_sinks

pytest.importorskip('av')
pytest.importorskip('rosbags')


@contextmanager
def no_file_beyond(size):
    """Makes every write beyond so many bytes of a file fail, until pytest itself may write to one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize('room', [10, 1000, 20_000])
@pytest.mark.parametrize('names', [('a.mp4', 'b.mcap', 'c.mkv'), ('b.mcap', 'a.mp4', 'bag:c')], ids='-'.join)
def test_a_full_disk_leaves_no_output_and_no_draft(tmp_path, names, room):
    specs = [f'bag:{tmp_path}/c' if name.startswith('bag:') else f'{tmp_path}/{name}' for name in names]
    noise = np.random.default_rng(0)

    def run() -> None:
        with open_sinks(specs, load_classes('camvid11')) as sinks:
            for number in range(100):
                image = noise.integers(0, 256, (48, 64, 3), np.uint8)
                segmentation = Segmentation(image[..., 0], image[..., 0], True, 0, 0, 0)
                for sink in sinks:
                    sink.write(Frame(image, number * 10**8), segmentation)

    with no_file_beyond(room), pytest.raises(OSError, match='File too large'):
        run()
    assert os.listdir(tmp_path) == []
