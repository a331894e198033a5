"""Which camera_info belongs to an image, and what it is for a mask."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from vss_ros.ros.camera_infos import KEPT, CameraInfos, described_size, scaled_camera_info

SIZE = (48, 64)  # (height, width)


@pytest.fixture
def infos(statistics) -> CameraInfos:
    return CameraInfos(5, statistics)


def header(number: int, camera: str = 'front') -> Header:
    return Header(stamp=Time(sec=100 + number), frame_id=camera)


def camera_info(number: int, camera: str = 'front', size: tuple[int, int] = SIZE) -> CameraInfo:
    return CameraInfo(height=size[0], width=size[1], header=header(number, camera))


def test_an_image_gets_the_camera_info_with_its_stamp_and_else_the_newest_of_its_camera_and_size(
    infos, statistics
):
    assert infos.find(header(3), SIZE) is None
    for info in (
        camera_info(1),
        camera_info(2),
        camera_info(4, size=(480, 640)),
        camera_info(5, camera='rear'),
    ):
        infos.keep(info)
    assert infos.find(header(3), SIZE) == camera_info(2)
    infos.keep(camera_info(3))
    assert infos.find(header(3), SIZE) == camera_info(3)
    assert statistics.snapshot().counts == {'camera_info_received': 5, 'camera_info_unmatched': 1}


@pytest.mark.parametrize('number', [2, 3], ids=['of another time', 'with the stamp of the image'])
@pytest.mark.parametrize('other', [{'camera': 'rear'}, {'size': (480, 640)}])
def test_the_geometry_of_another_camera_or_another_size_is_never_given_and_that_is_counted(
    infos, statistics, number, other
):
    infos.keep(camera_info(number, **other))
    assert infos.find(header(3), SIZE) is None
    assert statistics.snapshot().counts['camera_info_unmatched'] == 1
    assert 'the images of' in infos.misfit
    infos.keep(camera_info(1))
    assert infos.find(header(3), SIZE) == camera_info(1)
    assert statistics.snapshot().counts['camera_info_unmatched'] == 2
    assert infos.misfit == ''


def test_a_camera_info_with_absurdly_many_coefficients_is_counted_and_not_kept(infos, statistics):
    info = camera_info(1)
    info.d = [0.0] * 101
    infos.keep(info)
    assert infos.find(header(1), SIZE) is None
    assert statistics.snapshot().counts['camera_info_unmatched'] == 1


def test_a_camera_is_named_in_one_line_however_it_calls_itself(infos):
    infos.keep(camera_info(1, camera='rear\x1b[2J\n' + 1000 * 'r'))
    assert infos.find(header(1), SIZE) is None
    assert "are of frame_id 'rear\\x1b[2J\\nrrr" in infos.misfit
    assert infos.misfit.isprintable()
    assert len(infos.misfit) < 200


def test_why_an_image_has_no_camera_info_is_no_news_once_its_own_comes(infos):
    infos.keep(camera_info(1, camera='rear'))
    assert infos.find(header(3), SIZE) is None
    assert infos.misfit
    infos.keep(camera_info(3))
    assert infos.find(header(3), SIZE) == camera_info(3)
    assert infos.misfit == ''


def test_camera_infos_of_the_topic_that_goes_before_take_the_place_of_others_and_keep_it(infos):
    infos.keep(camera_info(1), rank=1)
    assert infos.find(header(1), SIZE) == camera_info(1)
    infos.keep(camera_info(2), rank=0)
    infos.keep(camera_info(3), rank=1)
    assert infos.find(header(3), SIZE) == infos.find(header(1), SIZE) == camera_info(2)
    assert infos.rank == 0
    infos.clear()
    infos.keep(camera_info(4), rank=1)  # the other one is not there any more
    assert infos.find(header(4), SIZE) == camera_info(4)


def test_a_bag_that_plays_again_and_again_keeps_as_many_camera_infos_as_before(infos):
    for number in [*range(2000), *range(1000)]:
        infos.keep(camera_info(number))
    oldest = 1000 - (5 + KEPT)
    assert infos.find(header(oldest), SIZE) == camera_info(oldest)
    assert infos.find(header(oldest - 1), SIZE) == camera_info(999)  # its own has made room
    assert infos.find(header(1500), SIZE) == camera_info(999)
    infos.keep(camera_info(900))
    assert infos.find(header(1500), SIZE) == camera_info(900)  # the newest one again


def test_a_camera_info_may_speak_of_a_part_of_the_sensor_and_of_binned_pixels():
    info = camera_info(1, size=(960, 1280))
    assert described_size(info) == (960, 1280)
    info.binning_x, info.binning_y = 2, 4
    assert described_size(info) == (240, 640)
    info.roi.height, info.roi.width = 400, 600
    assert described_size(info) == (100, 300)


def test_a_camera_info_in_the_geometry_of_the_mask_leaves_the_kept_one_as_it_was():
    kept = camera_info(1, size=(96, 128))
    kept.k = np.array([100, 0, 64, 0, 200, 48, 0, 0, 1.0])
    kept.p = np.array([100, 0, 64, 5, 0, 200, 48, 0, 0, 0, 1, 0.0])
    kept.roi.x_offset, kept.roi.width, kept.roi.y_offset, kept.roi.height = 8, 100, 4, 80
    before = copy.deepcopy(kept)
    for _ in range(2):
        scaled = scaled_camera_info(kept, header(2), (96, 128), (24, 64))  # a quarter as high, half as wide
        assert kept == before
    assert scaled.header == header(2)
    assert (scaled.height, scaled.width) == (24, 64)
    assert list(scaled.k) == [50, 0, 32, 0, 50, 12, 0, 0, 1]
    assert list(scaled.p) == [50, 0, 32, 2.5, 0, 50, 12, 0, 0, 0, 1, 0]
    roi = scaled.roi
    assert (roi.x_offset, roi.width, roi.y_offset, roi.height) == (4, 50, 1, 20)
    assert scaled_camera_info(kept, header(2), (96, 128), (96, 128)).header == header(2)
    small = camera_info(1, size=(49, 98))
    assert described_size(scaled_camera_info(small, header(2), (49, 98), (64, 64))) == (64, 64)
    assert kept == before
