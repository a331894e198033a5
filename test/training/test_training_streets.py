"""Drawn streets are kept on disk, and drawn again only where they must be."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from processes import started

from vss_ros.core.errors import OutputError, SettingsError
from vss_ros.training import streets
from vss_ros.training.streets import StreetSettings, draw_street, draw_streets

SETTINGS = StreetSettings(clips=1, frames=2, seed=3)


@pytest.fixture
def drawn(monkeypatch):
    """Numbers of the clips drawn, instead of taken from the disk."""
    numbers = []

    def draw(seed, number, *arguments):
        numbers.append(number)
        return draw_street(seed, number, *arguments, drive=4)

    monkeypatch.setattr(streets, 'draw_street', draw)
    return numbers


def test_kept_clips_are_those_that_were_drawn(tmp_path, drawn):
    first = draw_streets(SETTINGS, 32, 48, tmp_path)
    again = draw_streets(SETTINGS, 32, 48, tmp_path)
    assert drawn == [0]
    for one, other in zip(first, again, strict=True):
        for name in ('images', 'labels', 'flows'):
            assert np.array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name).dtype == getattr(other, name).dtype
    assert {file.name for file in tmp_path.rglob('*') if file.is_file()} == {'.lock', '00000.npz'}


def test_more_clips_of_a_kind_reuse_those_there_are(tmp_path, drawn):
    draw_streets(SETTINGS, 32, 48, tmp_path)
    draw_streets(StreetSettings(clips=2, frames=2, seed=3), 32, 48, tmp_path)
    assert drawn == [0, 1]


def test_streets_that_do_not_fit_on_the_disk_are_told_with_their_folder(tmp_path, drawn):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match=f'{tmp_path}/.* cannot be written: File too large'):
            draw_streets(SETTINGS, 32, 48, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.rglob('*') if file.is_file()] == ['.lock']


@pytest.mark.parametrize(
    ('settings', 'size'),
    [(StreetSettings(1, 2, 4), (32, 48)), (StreetSettings(1, 3, 3), (32, 48)), (SETTINGS, (48, 32))],
)
def test_other_settings_or_sizes_are_drawn_anew(tmp_path, drawn, settings, size):
    draw_streets(SETTINGS, 32, 48, tmp_path)
    clips = draw_streets(settings, *size, tmp_path)
    assert drawn == [0, 0]
    assert clips[0].labels.shape == (settings.frames, *size)


def test_a_damaged_file_is_drawn_again(tmp_path, drawn, caplog):
    expected = draw_streets(SETTINGS, 32, 48, tmp_path)
    [file] = tmp_path.rglob('00000.npz')
    file.write_bytes(file.read_bytes()[:100])
    found = draw_streets(SETTINGS, 32, 48, tmp_path)
    assert drawn == [0, 0]
    assert 'damaged' in caplog.text
    assert np.array_equal(found[0].images, expected[0].images)


def test_several_processes_draw_the_same(tmp_path):
    many = StreetSettings(clips=8, frames=2, seed=3)
    clips = draw_streets(many, 16, 16, tmp_path)
    expected = draw_street(3, 5, 2, 16, 16)
    assert np.array_equal(clips[5].images, expected.images)


def test_a_training_that_is_told_to_end_takes_those_that_draw_for_it_along(tmp_path):
    recipe = {
        'method': 'evss-lite',
        'classes': 'camvid11',
        'image': {'height': 64, 'width': 96},
        'streets': {'clips': 10_000, 'frames': 2},
        'stages': {'segmenter': {'fit': {'steps': 1}, 'shares': {'streets': 1}}},
    }
    (tmp_path / 'tiny.yaml').write_text(yaml.safe_dump(recipe))
    command = [sys.executable, '-m', 'vss_ros.cli.main', 'train', 'tiny.yaml', '--device', 'cpu']
    with started(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.rglob('*.npz')):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)  # until nobody holds the pipe any more
    assert process.returncode == 130
    assert 'interrupted' in said


@pytest.mark.parametrize('wrong', [{'clips': 0}, {'frames': 1}, {'frames': 61}])
def test_settings_of_no_use_are_refused(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        StreetSettings(**wrong)
