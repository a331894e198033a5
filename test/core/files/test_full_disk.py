"""Outputs on a disk that is full, played by the limit on the size of a file."""

import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import OutputError
from vss_ros.core.files.drafts import write_file
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

    with no_file_beyond(room), pytest.raises(OutputError, match=r'/[abc]\S* cannot be written: File too'):
        run()
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_named_with_the_output_and_the_way_out():
    message = '^/dev/full cannot be written: no space is left on the disk; free some or name another output$'
    with pytest.raises(OutputError, match=message):
        write_file(Path('/dev/full'), 'text')


def test_a_place_that_takes_no_output_is_named_as_the_user_did(tmp_path):
    (tmp_path / 'file').write_text('')
    specs = [f'bag:{tmp_path}/file/bag', f'{tmp_path}/file/o.mp4', f'{tmp_path}/file/masks/']
    for spec in specs:
        message = f'^{spec} cannot be written: .*; name another$'
        with pytest.raises(OutputError, match=message), open_sinks([spec], load_classes('camvid11')):
            pass
