from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import SettingsError, SourceError
from vss_ros.core.frame import CELL
from vss_ros.core.resize import fit
from vss_ros.training.clip_sources import ClipLibrary, read_video
from vss_ros.training.clips import Clip, SceneClasses, StillDriver, cut_out, inverse_depth, to_cells
from vss_ros.training.data import LabelledImages
from vss_ros.training.stages.flow import FlowSettings, look_through, random_field
from vss_ros.training.streets import draw_street

SCENE = SceneClasses.of(load_classes('camvid11'))


def street(height=96, width=128):
    """Sky over a building over a road, with one car on the road."""
    label = np.full((height, width), 3, np.uint8)
    label[: height // 4] = 0
    label[height // 4 : height // 2] = 1
    label[60:80, 50:80] = 8
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3)).astype(np.uint8), (0, 0), 2)
    return LabelledImages(['a_1'], [texture], [label])


def test_ground_comes_closer_downwards_and_sky_is_infinitely_far():
    depth = inverse_depth(street().labels[0], SCENE)
    assert depth.shape == (96 // CELL, 128 // CELL)
    assert (depth[: 24 // CELL] == 0).all()
    road = depth[48 // CELL :, 2]
    assert (np.diff(road) > 0).all()
    assert road[-1] == pytest.approx(1, abs=0.05)


def test_an_object_is_as_far_away_as_the_ground_it_stands_on():
    depth = inverse_depth(street().labels[0], SCENE)
    car, ground_below = depth[60 // CELL : 80 // CELL, 64 // CELL], depth[80 // CELL, 64 // CELL]
    assert car == pytest.approx(np.full(len(car), ground_below))


def test_background_stands_behind_what_hides_its_foot():
    label = street().labels[0].copy()
    label[30:96, 50:80] = 8  # a car so near that no road is seen below the building there
    depth = inverse_depth(label, SCENE)
    assert depth[26 // CELL, 64 // CELL] == pytest.approx(depth[26 // CELL, 2])


def test_only_whole_objects_are_cut_out():
    stills = street()
    assert [cutout.label for cutout in cut_out(stills, SCENE)] == [8]
    touching = stills.labels[0].copy()
    touching[60:80, 0:30] = 8
    touching[60:80, 50:80] = 3
    assert cut_out(LabelledImages(['a'], stills.images, [touching]), SCENE) == []


def test_a_clip_depends_on_its_generator_alone_and_keeps_the_size():
    driver = StillDriver(street(), SCENE)
    clips = [driver.clip(np.random.default_rng(3), 4) for _ in range(2)]
    assert clips[0].images.shape == (4, 96, 128, 3)
    assert clips[0].labels.shape == (4, 96, 128)
    assert (clips[0].images == clips[1].images).all()
    assert (clips[0].labels == clips[1].labels).all()
    assert set(np.unique(clips[0].labels)) <= {0, 1, 3, 8, 255}


@pytest.mark.parametrize('kind', ['drives', 'library'])
def test_clips_that_are_not_to_be_mirrored_are_the_same_but_for_that(kind):
    whole = StillDriver(street(), SCENE).clip(np.random.default_rng(0), 6)

    def source(mirrored):
        if kind == 'drives':
            return StillDriver(street(), SCENE, recoloured=False, mirrored=mirrored)
        return ClipLibrary([whole], 96, 128, recoloured=False, mirrored=mirrored)

    turned = []
    for seed in range(8):
        as_it_is, other = (source(each).clip(np.random.default_rng(seed), 3) for each in (False, True))
        turned.append(not (as_it_is.images == other.images).all())
        if turned[-1]:
            assert (as_it_is.images[:, :, ::-1] == other.images).all()
            assert (as_it_is.labels[:, :, ::-1] == other.labels).all()
    assert set(turned) == {False, True}


def test_classes_of_which_one_alone_moves_make_clips():
    clip = StillDriver(street(), replace(SCENE, objects=(8,))).clip(np.random.default_rng(3), 3)
    assert len(clip.images) == 3


def test_frames_of_a_clip_differ_from_each_other():
    clip = StillDriver(street(), SCENE).clip(np.random.default_rng(1), 5)
    assert all((clip.images[i] != clip.images[i + 1]).any() for i in range(4))


def test_a_library_cuts_wide_videos_to_the_shape_of_the_view():
    video = Clip(np.zeros((6, 54, 96, 3), np.uint8), np.full((6, 54, 96), 255, np.uint8))
    clip = ClipLibrary([video], 36, 48).clip(np.random.default_rng(0), 6)
    assert clip.images.shape == (6, 36, 48, 3)
    assert (clip.labels == 255).all()


def test_a_library_enlarges_smaller_videos_as_images_are_at_run_time():
    stills = street()
    video = Clip(np.stack(stills.images), np.stack(stills.labels))
    [image] = ClipLibrary([video], 192, 256).stills().images
    assert np.array_equal(image, fit(stills.images[0], (192, 256)))


def test_a_library_without_long_enough_clips_says_so():
    video = Clip(np.zeros((3, 8, 8, 3), np.uint8), np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(SettingsError, match='5 frames'):
        ClipLibrary([video], 8, 8).clip(np.random.default_rng(0), 5)


def test_drawn_streets_bring_labels_and_the_flow_between_frames():
    clips = [draw_street(0, number, 3, 48, 64, drive=8) for number in range(2)]
    assert [clip.images.shape for clip in clips] == [(3, 48, 64, 3)] * 2
    assert clips[0].flows.shape == (2, 2, 12, 16)
    assert (clips[0].images[0] != clips[1].images[0]).any()


def test_a_video_that_is_none_is_refused(tmp_path):
    (tmp_path / 'x.mp4').write_text('no video')
    with pytest.raises(SourceError, match=r'x\.mp4'):
        read_video(tmp_path / 'x.mp4', 96)


def test_what_names_other_files_is_no_video(tmp_path):
    (tmp_path / 'x.m3u8').write_text(
        '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/v.ts\n'
    )
    with pytest.raises(SourceError, match=r'x\.m3u8 cannot be read as a video'):
        read_video(tmp_path / 'x.m3u8', 96)


@pytest.mark.parametrize(('height', 'shape'), [(24, (3, 24, 32, 3)), (96, (3, 48, 64, 3))])
def test_videos_are_reduced_but_not_enlarged(tmp_path, height, shape):
    writer = cv2.VideoWriter(str(tmp_path / 'x.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 15, (64, 48))
    for grey in (50, 100, 150):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    clip = read_video(tmp_path / 'x.avi', height)
    assert clip.images.shape == shape
    assert clip.images.mean((1, 2, 3)) == pytest.approx([50, 100, 150], abs=3)
    assert (clip.labels == 255).all()


def test_an_image_seen_through_a_shift_has_that_flow():
    previous = street().images[0]
    flow = np.zeros((96, 128, 2), np.float32)
    flow[...] = (8, -4)
    image, cells = look_through(previous, flow)
    assert (image[10:80, 10:100] == previous[6:76, 18:108]).all()
    assert np.allclose(cells, np.array([2, -1])[:, None, None])


def test_random_fields_are_smooth():
    field = random_field(np.random.default_rng(0), 96, 128, FlowSettings())
    assert field.shape == (96, 128, 2)
    assert np.abs(np.diff(field, axis=1)).max() < 1
    assert to_cells(field).shape == (2, 24, 32)
