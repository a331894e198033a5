"""Data sets as users hold them, made small."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from vss_ros.core.errors import SettingsError, SourceError
from vss_ros.core.frame import Frame
from vss_ros.core.sources.open import SourceSettings
from vss_ros.core.sources.synthetic import SyntheticSource
from vss_ros.evaluation.clips import SourceClip, labels_by_stamp
from vss_ros.evaluation.data import open_data

H, W = 8, 12


def put(path: Path, pixels: np.ndarray | int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(pixels, int):
        is_image = 'label' not in str(path) and 'annot' not in str(path) and 'gtFine' not in str(path)
        pixels = np.full((H, W, 3) if is_image else (H, W), pixels, np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


def read(data, before=None):
    """Everything of a data set: clip name -> [(number, grey value of the image, id of the label or None)]."""
    return {
        clip.name: [
            (number, int(frame.image[0, 0, 0]), None if frame.truth is None else int(frame.truth[0, 0]))
            for number, frame in clip.frames(before)
        ]
        for clip in data.clips
    }


@pytest.fixture
def segnet(tmp_path):
    for split, names in {
        'train': ['0001TP_006690', '0001TP_006720'],
        'val': ['0016E5_07959', '0016E5_07961', '0016E5_07963'],
        'test': ['Seq05VD_f00000', 'Seq05VD_f00030'],
    }.items():
        for value, name in enumerate(names):
            put(tmp_path / split / f'{name}.png', value)
            put(tmp_path / f'{split}annot' / f'{name}.png', 11 if value == 1 else value)
    return tmp_path


def test_segnet_camvid_is_recognised_and_its_test_split_is_single_images(segnet):
    data = open_data([str(segnet)])
    assert (data.layout, data.classes) == ('camvid-segnet', 'camvid11')
    assert read(data) == {'Seq05VD_000000': [(0, 0, 0)], 'Seq05VD_000030': [(0, 1, 255)]}


def test_segnet_camvid_val_is_one_clip_and_void_is_unlabelled(segnet):
    (clip,) = open_data([str(segnet)], split='val').clips
    assert read(open_data([str(segnet)], split='val')) == {
        '0016E5_007959': [(0, 0, 0), (1, 1, 255), (2, 2, 2)]
    }
    stamps = [frame.stamp_ns for _, frame in clip.frames(None)]
    assert np.allclose(np.diff(stamps), 2 / 30 * 1e9, atol=1)


def test_side_files_of_a_mac_are_no_pictures(segnet):
    for path in list(segnet.glob('val*/*.png')):
        (path.parent / f'._{path.name}').write_bytes(b'\0\5\x16\7')
    assert len(read(open_data([str(segnet)], split='val'))['0016E5_007959']) == 3


def test_the_label_of_one_image_has_its_name(tmp_path):
    put(tmp_path / 'drive_07.png', np.zeros((H, W, 3), np.uint8))
    put(tmp_path / 'masks' / 'drive_07.png', np.full((H, W), 2, np.uint8))
    data = open_data([str(tmp_path / 'drive_07.png')], settings=SourceSettings(labels=tmp_path / 'masks'))
    [(_, frame)] = data.clips[0].frames(None)
    assert (frame.truth == 2).all()


def test_a_list_of_a_split_says_which_labels_belong_to_it(segnet):
    (segnet / 'test.txt').write_text(
        '/SegNet/CamVid/test/Seq05VD_f00030.png /x/testannot/Seq05VD_f00030.png\n'
    )
    assert list(read(open_data([str(segnet)]))) == ['Seq05VD_000030']


def test_a_split_that_is_not_there_is_named(segnet):
    with pytest.raises(SourceError, match=r'no labels of camvid-segnet, split .trian.; expected trianannot/'):
        open_data([str(segnet)], split='trian')


def test_camvid_images_and_labels_side_by_side_are_cut_into_clips(tmp_path):
    for number in (7959, 7961, 8500, 8502):
        put(tmp_path / 'images' / f'0016E5_{number:05d}.jpg', 0)
        put(tmp_path / 'labels' / f'0016E5_{number:05d}.png', 3)
    data = open_data([str(tmp_path)])
    assert data.layout == 'camvid-folder'
    assert [len(clip.files) for clip in data.clips] == [2, 2]


def camvid_folder(root):
    for kind, suffix in (('images', 'jpg'), ('labels', 'png')):
        for number in (7959, 7961, 8500):
            put(root / kind / f'0016E5_{number:05d}.{suffix}', 3)
    return root


@pytest.mark.parametrize('settings', [{'rate': 10.0}, {'labels': 'labels'}])
def test_a_data_set_does_not_silently_become_one_clip_by_an_option_of_sources(tmp_path, settings):
    root = camvid_folder(tmp_path)
    settings = SourceSettings(**settings)
    with pytest.raises(SettingsError, match=r'data set of layout camvid-folder.*add --layout plain'):
        open_data([str(root)], settings=settings)
    if settings.labels is None:
        [clip] = open_data([str(root)], layout='plain', settings=settings).clips
        assert len(list(clip.frames(None))) == 3


def test_several_folders_of_one_layout_are_one_data_set(tmp_path):
    roots = [str(camvid_folder(tmp_path / name)) for name in ('a', 'b')]
    data = open_data(roots)
    assert (data.name, data.layout) == ('a, b', 'camvid-folder')
    assert [len(clip.files) for clip in data.clips] == [2, 1, 2, 1]
    assert [len(clip.files) for clip in open_data(roots, layout='camvid-folder').clips] == [2, 1, 2, 1]


@pytest.mark.parametrize('turned', [False, True])
def test_a_data_set_beside_something_else_is_refused(tmp_path, turned):
    put(tmp_path / 'rgb' / '0.png')
    specs = [str(camvid_folder(tmp_path / 'set')), str(tmp_path / 'rgb')]
    with pytest.raises(
        SettingsError, match=r'set is a data set of layout camvid-folder, .*rgb is not; .*plain'
    ):
        open_data(specs[::-1] if turned else specs)
    assert len(open_data(specs, layout='plain').clips) == 2


@pytest.mark.parametrize('file', ['labels/0016E5_07959_instances.png', 'images/0016E5_7959.jpg'])
def test_two_files_of_one_frame_are_refused_by_name(tmp_path, file):
    put(camvid_folder(tmp_path) / file)
    with pytest.raises(SourceError) as caught:
        open_data([str(tmp_path)])
    assert '07959.' in str(caught.value)
    assert str(tmp_path / file) in str(caught.value)
    assert 'both of frame 7959 of 0016E5' in str(caught.value)


def colours(*rgb):
    """A label image whose rows have these colours."""
    rows = np.array(rgb, np.uint8)[:, None, ::-1]
    return np.ascontiguousarray(np.broadcast_to(rows, (len(rgb), W, 3)))


def test_camvid_video_finds_the_frame_of_a_label_and_groups_its_colours(tmp_path):
    shades = [(128, 128, 128), (64, 192, 0), (192, 0, 64), (64, 128, 192), (0, 0, 0), (1, 2, 3)]
    image = np.zeros((len(shades), W, 3), np.uint8)
    for number in range(1889, 1893):  # label 8550 is frame 1889 of this sequence
        put(tmp_path / '0001TP' / f'{number:06d}.png', image + (number - 1889))
    put(tmp_path / 'LabeledApproved_full' / '0001TP_008550_L.png', colours(*shades))
    put(tmp_path / 'LabeledApproved_full' / '0001TP_008520_L.png', colours(*shades))  # belongs to train
    data = open_data([str(tmp_path)])
    assert data.layout == 'camvid-video'
    (clip,) = data.clips
    frames = dict(clip.frames(None))
    assert [frame.truth is not None for frame in frames.values()] == [True, False, False, False]
    assert frames[0].truth[:, 0].tolist() == [0, 1, 3, 8, 255, 255]  # sky, wall, lane marking, SUV, void, -


def test_camvid_is_found_as_the_authors_have_it(tmp_path):
    for number in range(1889, 1892):  # label 8550 is frame 1890 of this sequence, counted from 1
        put(tmp_path / 'video_image' / '0001TP' / f'0001TP_{number:06d}.png', number - 1889)
    put(tmp_path / 'label' / '0001TP_008550_L.png', 8)
    data = open_data([str(tmp_path)])
    assert data.layout == 'camvid-ids'
    assert read(data) == {'0001TP_001889': [(0, 0, None), (1, 1, 8), (2, 2, None)]}


def test_camvid_labels_that_lie_among_the_frames_are_not_taken_for_frames(tmp_path):
    for number in range(929, 931):
        put(tmp_path / '0006R0' / f'{number:06d}.png', 7)
    put(tmp_path / '0006R0' / '0006R0_f00930_L.png', colours(*[(128, 128, 128)] * H))
    data = open_data([str(tmp_path)], split='train')
    assert read(data) == {'0006R0_000929': [(0, 7, None), (1, 7, 0)]}


def test_the_clip_of_a_split_has_no_more_of_another_split_than_its_first_label_is_reached_from(tmp_path):
    for number in range(1850, 1895):  # label 8550, the first of the split, is frame 1889
        put(tmp_path / '0001TP' / f'{number:06d}.png')
    for number in (8520, 8550):
        put(tmp_path / 'labels' / f'0001TP_{number:06d}_L.png', colours(*[(128, 128, 128)] * H))
    clips = {split: open_data([str(tmp_path)], split=split).clips for split in ('train', 'test', 'all')}
    seen = {split: [int(file.image.stem) for file in clip.files] for split, [clip] in clips.items()}
    assert seen == {
        'train': [*range(1850, 1889)],
        'test': [*range(1859, 1895)],
        'all': [*range(1850, 1895)],
    }


def test_it_is_said_where_frames_are_missing_inside_a_clip(segnet, caplog):
    open_data([str(segnet)], split='val')
    assert not caplog.text
    for number in (7969, 7971, 7977, 7991):  # three gaps; to the last it is 14, which ends no clip
        for folder in ('val', 'valannot'):
            put(segnet / folder / f'0016E5_{number:06d}.png')
    open_data([str(segnet)], split='val')
    assert 'not as long as most of their clip: 3, that to' in caplog.text
    assert '0016E5_007969.png for example' in caplog.text


def test_a_label_whose_frame_is_missing_is_named(tmp_path):
    put(tmp_path / '0006R0' / '000931.png')
    put(tmp_path / 'labels' / '0006R0_f00930_L.png', colours((0, 0, 0)))
    with pytest.raises(SourceError, match=r'0006R0_f00930_L.png has no image of the same name'):
        open_data([str(tmp_path)], 'camvid-video', split='train')


def cityscapes(root, labels, value, folder='leftImg8bit_sequence'):
    for number in range(16, 22):
        put(root / folder / 'val' / 'ulm' / f'ulm_000003_{number:06d}_leftImg8bit.png', number)
    put(root / 'gtFine' / 'val' / 'ulm' / f'ulm_000003_000019_gtFine_{labels}.png', value)
    return root


@pytest.mark.parametrize(
    ('labels', 'value', 'expected'),
    [('labelIds', 26, 13), ('labelIds', 1, 255), ('labelTrainIds', 13, 13), ('trainIds', 255, 255)],
)
def test_cityscapes_label_ids_become_train_ids_and_train_ids_stay(tmp_path, labels, value, expected):
    data = open_data([str(cityscapes(tmp_path, labels, value))])
    assert (data.layout, data.classes) == ('cityscapes', 'cityscapes19')
    ((_, frames),) = read(data).items()
    assert frames == [(n, n + 16, expected if n == 3 else None) for n in range(6)]


def test_only_the_frames_before_a_labelled_one_are_read_where_no_more_is_needed(tmp_path):
    data = open_data([str(cityscapes(tmp_path, 'labelIds', 7))])
    assert list(read(data, before=2).values()) == [[(1, 17, None), (2, 18, None), (3, 19, 0)]]


def test_of_two_kinds_of_labels_that_is_taken_of_which_there_are_more(tmp_path):
    cityscapes(tmp_path, 'labelIds', 7)
    folder = tmp_path / 'gtFine' / 'val' / 'ulm'
    put(folder / 'ulm_000003_000020_gtFine_labelIds.png', 7)
    put(folder / 'ulm_000003_000019_gtFine_labelTrainIds.png', 0)  # the rest of them was not made
    [clip] = open_data([str(tmp_path)]).clips
    assert sum(frame.truth is not None for _, frame in clip.frames(None)) == 2


def test_cityscapes_without_its_sequences_is_read_as_single_images(tmp_path):
    data = open_data([str(cityscapes(tmp_path, 'labelIds', 7, folder='leftImg8bit'))])
    assert len(data.clips) == 1


def test_a_layout_of_ones_own_is_a_file(tmp_path):
    put(tmp_path / 'data' / 'rgb' / 'drive_0001.png', 5)
    put(tmp_path / 'data' / 'label' / 'drive_0001.png', 40)
    (tmp_path / 'mine.yaml').write_text(
        "classes: camvid11\nimages: ['rgb/*.png']\nrate: 10\nname: '(?P<sequence>.+)_(?P<number>[0-9]+)'\n"
        "labels:\n  - files: 'label/*.png'\n    ids: {40: 3}\n"
    )
    data = open_data([str(tmp_path / 'data')], str(tmp_path / 'mine.yaml'))
    assert read(data) == {'drive_000001': [(0, 5, 3)]}


OWN = {
    'classes': 'camvid11',
    'images': ['rgb/*.png'],
    'labels': [{'files': 'label/*.png'}],
    'name': r'(?P<number>\d+)',
    'rate': 10,
}


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'labels': [{'files': 'label/*.png', 'ids': {300: 1}}]}, r'\(300, 1\) are not whole numbers'),
        ({'labels': [{'files': 'label/*.png', 'ids': {3: 'road'}}]}, "'road'"),
        ({'labels': [{'files': 'label/*.png', 'colours': {'road': [1, 2, 3]}}]}, 'not iterable'),
        ({'labels': [{'files': 'label/*.png', 'colours': {'road': [[1, 2]]}}]}, 'no colour'),
        ({'labels': [{'files': 'label/*.png', 'colours': {'road': [[1, 2, 300]]}}]}, '300'),
        ({'labels': [{'files': 'label/*.png', 'colours': {'street': [[1, 2, 3]]}}]}, 'street .* no class'),
        ({'name': r'(\d+)'}, r'\(\?P<number>'),
        ({'rate': 0}, 'rate is 0'),
        ({'rate': 'fast'}, 'not supported'),
        ({'rate': 1.0e-300}, 'rate is 1e-300'),
        ({'rate': float('inf')}, 'rate is inf'),
        ({'classes': 5}, 'classes has 5, which is no text'),
        ({'name': 5}, 'name has 5, which is no text'),
        ({'list_file': ['val.txt']}, 'list_file has .*, which is no text'),
        ({'images': 'rgb/*.png'}, r'images is .*; write a list'),
        ({'images': [5]}, 'images has 5, which is no text'),
        ({'labels': [{'files': 5}]}, 'files has 5, which is no text'),
        ({'splits': {'val': {'d': ['a', 'b']}}}, 'no ranges'),
        ({'splits': {'val': {'d': 'ab'}}}, 'no ranges'),
        ({'shift': {'d': 'a'}}, 'shift is .*; write a whole number'),
        ({'shift': 5}, 'shift is 5'),
        ({'images': ['/rgb/*.png']}, "'/rgb/\\*.png' is no pattern"),
        ({'images': ['rgb/{city}/*.png']}, 'city'),
        ({'labels': [{'files': 'label/{sequence}/*.png'}]}, 'as only images may; write \\*'),
        ({'splits': ['a']}, 'no attribute'),
        ({'splits': {'a': {'b': [2, 1]}}}, 'no ranges'),
    ],
)
def test_a_layout_with_a_mistake_in_it_is_refused(tmp_path, changed, message):
    put(tmp_path / 'rgb' / '1.png')
    put(tmp_path / 'label' / '1.png')
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump(OWN | changed))
    with pytest.raises(SettingsError, match=message):
        open_data([str(tmp_path)], str(tmp_path / 'mine.yaml'))


def test_files_without_a_number_in_their_name_are_none_of_ours(tmp_path):
    for name in ('1', 'readme'):
        put(tmp_path / 'rgb' / f'{name}.png')
        put(tmp_path / 'label' / f'{name}.png')
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump(OWN | {'name': r'(?P<number>\w+)'}))
    data = open_data([str(tmp_path)], str(tmp_path / 'mine.yaml'))
    assert read(data) == {'_000001': [(0, 0, 0)]}


def test_a_data_set_without_splits_has_none_to_choose(tmp_path):
    put(tmp_path / 'images' / '0016E5_07959.png')
    put(tmp_path / 'labels' / '0016E5_07959.png')
    with pytest.raises(SettingsError, match='camvid-folder has no splits'):
        open_data([str(tmp_path)], split='val')


def test_any_images_with_masks_are_one_clip(tmp_path):
    for number in range(3):
        put(tmp_path / 'rgb' / f'{number}.png', number)
    put(tmp_path / 'label' / '2.png', 4)
    data = open_data([str(tmp_path / 'rgb')], settings=SourceSettings(labels=tmp_path / 'label'))
    assert data.layout == 'plain'
    assert list(read(data).values()) == [[(0, 0, None), (1, 1, None), (2, 2, 4)]]


def test_several_sources_are_several_clips():
    data = open_data(['synthetic:1x2', 'synthetic:2x3'])
    assert [clip.__length_hint__() for clip in data.clips] == [2, 3]


def test_sources_have_no_splits():
    with pytest.raises(SettingsError, match='has no splits'):
        open_data(['synthetic:1x2'], split='val')


@pytest.mark.parametrize(
    'name',
    [
        '1500000000000000007.png',
        '1500000000000000007_left_2.png',
        '1500000000_7.png',
        '1500000000_7-mask.png',
        '1500000000000000007-0.png',
        '1500000000_000000007_2.png',
        '1500000000.000000007.png',
    ],
)
def test_a_mask_is_found_by_the_stamp_in_its_name(tmp_path, name):
    path = put(tmp_path / 'labels' / name)
    assert labels_by_stamp(tmp_path / 'labels') == {1500000000000000007: path}


def test_two_masks_of_one_stamp_are_refused(tmp_path):
    for name in ('1500000000000000007_mask.png', '1500000000_7.png'):
        put(tmp_path / 'labels' / name)
    with pytest.raises(SourceError, match=r'1500000000000000007_mask.png and .*7.png are of one stamp'):
        labels_by_stamp(tmp_path / 'labels')


@pytest.mark.parametrize(
    'names', [['left.png'], ['0016E5_07959.png', '0016E5_07961.png'], ['0001_left.png', '0001_right.png']]
)
def test_a_folder_without_stamped_masks_is_refused(tmp_path, names):
    for name in names:
        put(tmp_path / 'labels' / name)
    with pytest.raises(SourceError, match='no labels named by stamp'):
        labels_by_stamp(tmp_path / 'labels')


def test_a_bag_takes_its_truth_from_masks_named_by_stamp(tmp_path):
    pytest.importorskip('rosbags')
    from vss_ros.core.classes import load_classes
    from vss_ros.core.frame import Segmentation
    from vss_ros.core.sinks.open import open_sink

    sink = open_sink(str(tmp_path / 'drive.mcap'), load_classes('camvid11'), images=True)
    stamps = [1_500_000_000_000_000_000 + n * 10**8 for n in range(3)]
    for value, stamp_ns in enumerate(stamps):
        mask = np.full((H, W), value, np.uint8)
        frame = Frame(np.full((H, W, 3), value, np.uint8), stamp_ns, 'camera')
        sink.write(frame, Segmentation(mask, mask, True, 0, 0, stamp_ns))
    sink.close()
    put(tmp_path / 'labels' / f'{stamps[1]}.png', 6)
    from rosbags.highlevel import AnyReader

    with AnyReader([tmp_path / 'drive.mcap']) as reader:
        topics = {entry.topic for entry in reader.connections if entry.msgtype.endswith('/Image')}
    image_topic = next(topic for topic in topics if 'image' in topic)
    settings = SourceSettings(labels=tmp_path / 'labels', topic=image_topic)
    data = open_data([str(tmp_path / 'drive.mcap')], settings=settings)
    assert list(read(data).values()) == [[(0, 0, None), (1, 1, 6), (2, 2, None)]]


def test_a_mask_by_stamp_that_does_not_fit_its_image_is_named(tmp_path):
    put(tmp_path / 'labels' / '0.png', np.zeros((2, 2), np.uint8))
    clip = SourceClip('street', lambda: SyntheticSource(0, 1, 16, 24), tmp_path / 'labels')
    with pytest.raises(SourceError, match=r'0\.png does not fit its image: labels are \(2, 2\)'):
        list(clip.frames(None))


def test_masks_with_the_stamp_of_no_frame_are_told(tmp_path, caplog):
    for stamp in (0, 1, 2):
        put(tmp_path / 'labels' / f'{stamp:06d}.png', np.zeros((16, 24), np.uint8))
    clip = SourceClip('street', lambda: SyntheticSource(0, 2, 16, 24), tmp_path / 'labels')
    assert len(list(clip.frames(None))) == 2
    assert 'street: 2 of 3 labels have the stamp of no frame' in caplog.text
