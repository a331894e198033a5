"""Videos in which some frames are labelled, found by the layout of a published data set."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from vss_ros.core.errors import SettingsError
from vss_ros.core.files.share import share_path
from vss_ros.core.resize import fit
from vss_ros.core.sources.images import read_image
from vss_ros.methods import build_method
from vss_ros.training.gather import Gathered
from vss_ros.training.labelled_video import LabelledVideo, layout_and_split, read_layout
from vss_ros.training.recipe import parse_recipe
from vss_ros.training.stages.correction import CorrectionSettings, CorrectionStage
from vss_ros.training.stages.fusion import FusionStage, clips_to_remember, labelled

HEIGHT, WIDTH = 32, 64
FRAMES, LABELLED = 12, 7


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Cityscapes in small: frame n of snippet s is all 10 n + s, and frame 7 is labelled with class s."""
    root = tmp_path_factory.mktemp('cityscapes')
    images, labels = root / 'leftImg8bit_sequence/train/ulm', root / 'gtFine/train/ulm'
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for snippet in range(4):
        for number in range(FRAMES):
            image = np.full((HEIGHT, WIDTH, 3), 10 * number + snippet, np.uint8)
            cv2.imwrite(str(images / f'ulm_{snippet:06d}_{number:06d}_leftImg8bit.png'), image)
        label = np.full((HEIGHT, WIDTH), snippet, np.uint8)
        cv2.imwrite(str(labels / f'ulm_{snippet:06d}_{LABELLED:06d}_gtFine_labelTrainIds.png'), label)
    return root


@pytest.fixture
def video(root):
    return LabelledVideo(
        read_layout(root, 'cityscapes/train', 'cityscapes19'), HEIGHT, WIDTH, recoloured=False
    )


@pytest.mark.parametrize(('backwards', 'numbers'), [(False, [4, 5, 6, 7]), (True, [10, 9, 8, 7])])
def test_a_clip_ends_at_the_labelled_frame_from_either_side(video, backwards, numbers):
    for seed in range(5):
        clip = video.clip(np.random.default_rng(seed), 4, backwards)
        snippet = clip.labels[-1, 0, 0]
        assert clip.images[:, 5, 5, 0].tolist() == [10 * number + snippet for number in numbers]
        assert (clip.labels[:-1] == 255).all()
        assert (clip.labels[-1] == snippet).all()


def test_frames_that_are_smaller_are_enlarged_as_at_run_time(root):
    places = read_layout(root, 'cityscapes/train', 'cityscapes19')
    path = places[0][0].files[0].image
    before = read_image(path)
    cv2.imwrite(str(path), steps := np.broadcast_to(np.arange(WIDTH, dtype=np.uint8)[:, None], before.shape))
    clip = LabelledVideo(places, 2 * HEIGHT, 2 * WIDTH).clip_to(places[0], LABELLED + 1)
    cv2.imwrite(str(path), before)
    assert np.array_equal(clip.images[0], fit(steps, (2 * HEIGHT, 2 * WIDTH)))


def test_frames_may_follow_the_labelled_one(root):
    places = read_layout(root, 'cityscapes/train', 'cityscapes19')
    video = LabelledVideo(places, HEIGHT, WIDTH, recoloured=False, following=1)
    for clip in (video.clip(np.random.default_rng(0), 3), video.clips_aside(3, 2)[-1]):
        snippet = clip.labels[1, 0, 0]
        assert clip.images[:, 5, 5, 0].tolist() == [10 * number + snippet for number in (6, 7, 8)]
        assert (clip.labels[[0, 2]] == 255).all()
    with pytest.raises(SettingsError, match='8 frames on that side and 1 on the other'):
        video.clip(np.random.default_rng(0), 10)


def test_of_videos_the_memory_is_filled_from_each_labelled_frame_once_in_order_and_never_mirrored(root):
    places = read_layout(root, 'cityscapes/train', 'cityscapes19')
    video = LabelledVideo(places, HEIGHT, WIDTH, recoloured=False, following=1)
    clips = list(clips_to_remember([(video, 1.0)], count=2, seed=0))
    assert [clip.labels[1, 0, 0] for clip in clips] == [0, 1, 2, 3]
    assert [clip.images[:, 5, 5, 0].tolist() for clip in clips] == [
        [60 + n, 70 + n, 80 + n] for n in range(4)
    ]


@pytest.mark.parametrize(('frames', 'seen'), [('published', [6, 7, 8]), ('causal', [5, 6, 7])])
def test_stf_is_trained_on_the_labelled_frame_of_a_data_set_wherever_its_order_has_it(root, frames, seen):
    method = build_method('st-memory', 19, {'backbone': 'lite', 'frames': frames, 'grid': (4, 8)})
    stages = {'fusion': STAGE | {'sampling': {'recolour': False}}}
    city = recipe(method='st-memory', held_out=0.5, stages=stages)
    stage = FusionStage.create(method, Gathered(city, {'city': root}, root / 'unused'), city.stages[0])
    batch = stage.batch(0)
    snippets = labelled(method, batch['labels'])[:, 0, 0, 0]
    assert (batch['images'][:, :, 5, 5, 0] == 10 * np.array(seen) + snippets[:, None]).all()
    assert set(stage.validate(stage.module)) == {'miou'}


def test_a_clip_for_which_there_are_too_few_frames_is_refused(video):
    assert len(video.clip(np.random.default_rng(0), 8).images) == 8
    with pytest.raises(SettingsError, match='8 frames on that side'):
        video.clip(np.random.default_rng(0), 9)
    with pytest.raises(SettingsError, match='5 frames on that side'):
        video.clip(np.random.default_rng(0), 6, backwards=True)


def test_labelled_frames_without_their_video_make_no_clips_and_the_data_is_named(root, tmp_path):
    city = shutil.copytree(root, tmp_path / 'city')
    for file in city.glob('leftImg8bit_sequence/*/*/*.png'):
        if f'_{LABELLED:06d}_' not in file.name:
            file.unlink()
    written = recipe(options={'flow': 'network'})
    method = build_method('evss', 19, written.options)
    with pytest.raises(SettingsError, match=r'city: no labelled frame has 9 frames.* with its video'):
        CorrectionStage.create(method, Gathered(written, {'city': city}, tmp_path), written.stages[0])


@pytest.mark.parametrize(
    ('sampling', 'lengths'),
    [
        ({'frames': 5}, {(5, False)}),
        ({'frames': 5, 'backwards': 0.5}, {(5, False), (5, True)}),
        ({'hops': 1, 'intervals': (1, 3, -2)}, {(4, False), (3, True)}),
    ],
)
def test_the_longest_clips_that_samples_need_are_known(sampling, lengths):
    assert CorrectionSettings(judged=1, **sampling).lengths == lengths


def test_frames_of_another_size_are_resized(root):
    places = read_layout(root, 'cityscapes/train', 'cityscapes19')
    clip = LabelledVideo(places, 16, 32).clip(np.random.default_rng(0), 2)
    assert clip.images.shape == (2, 16, 32, 3)
    assert clip.labels.shape == (2, 16, 32)


STAGE = {'fit': {'steps': 1}, 'shares': {'city': 1}}


def recipe(**changes):
    return parse_recipe(
        'city',
        {
            'method': 'evss',
            'classes': 'cityscapes19',
            'layouts': {'city': 'cityscapes/train'},
            'image': {'height': HEIGHT, 'width': WIDTH},
            'held_out': 0.25,
            'stages': {'correction': STAGE},
            **changes,
        },
    )


@pytest.mark.parametrize(('sampling', 'ways'), [({}, {False, True}), ({'mirror': False}, {False})])
def test_half_of_the_clips_are_mirrored_unless_the_recipe_forbids_it(root, tmp_path, sampling, ways):
    city = shutil.copytree(root, tmp_path / 'city')
    for file in city.glob('leftImg8bit_sequence/*/*/*.png'):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[:, WIDTH // 2 :] = 100  # the right half is bright
        cv2.imwrite(str(file), image)
    stages = {'correction': STAGE | {'sampling': {'batch': 16, 'recolour': False, 'frames': 5, **sampling}}}
    written = recipe(stages=stages, options={'flow': 'network'})
    method = build_method('evss', 19, written.options)
    stage = CorrectionStage.create(method, Gathered(written, {'city': city}, tmp_path), written.stages[0])
    assert set((stage.batch(0)['images'][:, -1, 5, 5, 0] > 50).tolist()) == ways


def test_the_last_labels_are_kept_aside_and_scored_at_several_distances(root, tmp_path):
    data = Gathered(recipe(), {'city': root}, tmp_path)
    [(source, share)] = data.clips({'city': 1.0})
    assert (len(source), share) == (3, 1.0)
    [(stills, _)] = data.stills({'city': 1.0})
    assert [label[0, 0] for label in stills.labels] == [0, 1, 2]
    assert [label[0, 0] for label in data.aside.labels] == [3]
    assert [len(clip.images) for clip in data.clips_aside(4)] == [2]
    assert source.clips_aside(6, 3)[2].labels[-1, 0, 0] == 2
    assert [len(clip.images) for clip in source.clips_aside(6, 3)] == [2, 4, 6]
    assert data.frequencies[:4].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert data.describe()['city'].startswith(
        'cityscapes/train, 3 labelled images, 1 more kept aside; sha256 of the files '
    )


@pytest.mark.parametrize('place', ['', './', '{folder}/'])
def test_a_layout_may_be_a_file_anywhere(root, tmp_path, monkeypatch, place):
    shutil.copy(share_path('config/datasets/cityscapes.yaml'), tmp_path / 'mine.yaml')
    shutil.copy(share_path('config/datasets/camvid-folder.yaml'), tmp_path / 'whole.yml')
    monkeypatch.chdir(tmp_path)
    place = place.format(folder=tmp_path)
    assert len(read_layout(root, f'{place}mine.yaml/train', 'cityscapes19')) == 4
    layout, split = layout_and_split(f'{place}whole.yml', 'camvid11')
    assert (layout.title, split) == ('whole', '')
    with pytest.raises(SettingsError, match=f'name the part, such as {place}mine.yaml/train'):
        layout_and_split(f'{place}mine.yaml', 'cityscapes19')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'layouts': {'city': 'kitti/train'}}, "no layout 'kitti'"),
        ({'classes': 'camvid11'}, 'has the classes cityscapes19, the recipe camvid11'),
        ({'layouts': {'town': 'cityscapes/train'}}, 'layouts names town'),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(root, tmp_path, changes, message):
    with pytest.raises(SettingsError, match=message):
        _ = Gathered(recipe(**changes), {'city': root}, tmp_path).aside
