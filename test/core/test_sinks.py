import dataclasses
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from vss_ros.core.classes import load_classes
from vss_ros.core.drawing import overlay, overlay_result
from vss_ros.core.errors import SettingsError, ShapeError
from vss_ros.core.files.drafts import Draft, write_file
from vss_ros.core.frame import Frame, Segmentation
from vss_ros.core.sinks.open import check_apart, open_sink, open_sinks
from vss_ros.core.sinks.scores import ScoreSink
from vss_ros.core.sinks.timings import TimingSink
from vss_ros.core.sources.images import ImageSource
from vss_ros.core.sources.open import open_source

CLASSES = load_classes('camvid11')
GREY = 128


def frame(number=0, size=(48, 64), truth=None):
    return Frame(np.full((*size, 3), GREY, np.uint8), number * 40_000_000, truth=truth)


def result(source, label=3, age=0):
    mask = np.full(source.size, label, np.uint8)
    return Segmentation(mask, mask, age == 0, age, 0, source.stamp_ns, timings_ms={'a': 1.0 + age, 'b': 2.0})


def visible(folder):
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith('.'))


def test_masks_come_back_from_their_folder_exactly(tmp_path):
    masks = [np.random.default_rng(i).integers(0, 256, (9, 7), np.uint8) for i in range(3)]
    sink = open_sink(f'{tmp_path}/masks/', CLASSES)
    for i, mask in enumerate(masks):
        sink.write(frame(), Segmentation(mask, mask, True, 0, 0, i))
        assert visible(tmp_path / 'masks')[-1] == f'{i:06d}.png'
    sink.close()
    assert sorted(os.listdir(tmp_path / 'masks')) == ['000000.png', '000001.png', '000002.png']
    found = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in sorted((tmp_path / 'masks').iterdir())]
    assert all(np.array_equal(mask, copy) for mask, copy in zip(masks, found, strict=True))


def test_masks_serve_as_labels_of_their_images(tmp_path):
    sink = open_sink(f'{tmp_path}/labels/', CLASSES)
    (tmp_path / 'images').mkdir()
    for number in range(2):
        cv2.imwrite(f'{tmp_path}/images/{number:06d}.png', frame().image)
        sink.write(frame(), result(frame(), number))
    sink.close()
    assert [int(item.truth[0, 0]) for item in ImageSource(tmp_path)] == [0, 1]


def test_masks_of_named_frames_have_their_names(tmp_path):
    with open_sinks([f'{tmp_path}/'], CLASSES) as [sink]:
        for name in ('b', '', 'a', 'b', '000001', 'b'):
            sink.write(dataclasses.replace(frame(), name=name), result(frame()))
    assert visible(tmp_path) == ['000001-2.png', '000001.png', 'a.png', 'b-2.png', 'b-3.png', 'b.png']


def test_old_masks_are_replaced_only_if_asked_and_other_files_stay(tmp_path):
    for count in (3, 1):
        sink = open_sink(f'{tmp_path}/', CLASSES, overwrite=True)
        for _ in range(count):
            sink.write(frame(), result(frame()))
        sink.close()
        (tmp_path / 'mine.png').write_bytes(b'')
    assert visible(tmp_path) == ['000000.png', 'mine.png']
    with pytest.raises(SettingsError, match='holds PNGs already; choose another folder or add --overwrite'):
        open_sink(f'{tmp_path}/', CLASSES)


def test_of_a_million_masks_too_the_old_ones_are_replaced_and_nothing_else_is(tmp_path):
    others = ['12.png', 'a000000.png', '000001_left.png', '000000.png.bak', '0000007.PNG']
    for name in ['000001.png', '1000000.png', *others]:
        (tmp_path / name).touch()
    with open_sinks([f'{tmp_path}/'], CLASSES, overwrite=True) as [sink]:
        sink.write(frame(), result(frame()))
    assert visible(tmp_path) == sorted(['000000.png', *others])


def test_hidden_files_beside_masks_are_none_of_them(tmp_path, caplog):
    (tmp_path / '._000001.png').write_text('what a Mac remembers of it')
    for overwrite in (False, True):
        with open_sinks([f'{tmp_path}/'], CLASSES, overwrite=overwrite) as [sink]:
            sink.write(frame(), result(frame()))
    assert sorted(os.listdir(tmp_path)) == ['._000001.png', '000000.png']
    assert caplog.text == ''


def test_an_old_mask_that_somebody_else_removes_during_a_run_is_no_error(tmp_path):
    for name in ('000001.png', '000002.png'):
        (tmp_path / name).touch()
    with open_sinks([f'{tmp_path}/'], CLASSES, overwrite=True) as [sink]:
        sink.write(frame(), result(frame()))
        (tmp_path / '000001.png').unlink()
    assert visible(tmp_path) == ['000000.png']


def test_masks_of_images_with_other_names_stay_and_are_told_of(tmp_path, caplog):
    for names in ('ab', 'bc'):
        with open_sinks([f'{tmp_path}/'], CLASSES, overwrite=True) as [sink]:
            for name in names:
                sink.write(dataclasses.replace(frame(), name=name), result(frame(), ord(name)))
    assert visible(tmp_path) == ['a.png', 'b.png', 'c.png']
    assert [record.message for record in caplog.records] == [
        f'{tmp_path}: 1 PNGs are not of this run, a.png for example'
    ]


def test_masks_go_into_a_folder_that_exists_also_without_a_slash_and_never_over_a_file(tmp_path):
    (tmp_path / 'masks').mkdir()
    with open_sinks([f'{tmp_path}/masks'], CLASSES) as [sink]:
        sink.write(frame(), result(frame()))
    assert visible(tmp_path / 'masks') == ['000000.png']
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(SettingsError, match='file is a file; give a folder for the masks'):
        open_sink(f'{tmp_path}/file/', CLASSES)


@pytest.mark.parametrize(('written', 'left'), [(2, [7, 7]), (0, [3, 3, 3])])
def test_masks_of_a_run_that_is_broken_off_are_never_mixed_with_those_it_replaces(tmp_path, written, left):
    spec = f'{tmp_path}/'
    first = open_sink(spec, CLASSES)
    for _ in range(3):
        first.write(frame(), result(frame(), label=3))
    first.close()
    second = open_sink(spec, CLASSES, overwrite=True)
    for _ in range(written):
        second.write(frame(), result(frame(), label=7))
    second.discard()
    masks = [cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED) for name in visible(tmp_path)]
    assert [int(mask[0, 0]) for mask in masks] == left


@pytest.mark.parametrize('codec', ['libx264', 'mpeg4'])
@pytest.mark.parametrize('name', ['out.mp4', 'out.mkv'])
def test_an_overlay_video_keeps_times_and_colours(tmp_path, monkeypatch, name, codec):
    av = pytest.importorskip('av')
    from av.video.reformatter import ColorRange, Colorspace

    from vss_ros.core.sinks import overlay as overlay_module

    monkeypatch.setattr(overlay_module, 'CODEC_OPTIONS', {codec: overlay_module.CODEC_OPTIONS[codec]})
    sink = open_sink(str(tmp_path / name), CLASSES, alpha=0.5)
    for number in (0, 1, 5):
        sink.write(frame(number), result(frame(number), label=3, age=number))
    assert visible(tmp_path) == []
    sink.close()
    assert os.listdir(tmp_path) == [name]
    source = open_source(str(tmp_path / name))
    found = list(source)
    source.close()
    assert [item.stamp_ns for item in found] == [0, 40_000_000, 200_000_000]
    with av.open(str(tmp_path / name)) as video:  # or players guess, and guess another one for HD
        context = next(video.decode(video=0))
        told = context.colorspace, context.color_range
    if codec == 'libx264':  # the other one has no room for it
        assert told == (Colorspace.ITU601, ColorRange.MPEG)
    expected = (np.array(CLASSES.colours[3][::-1]) + GREY) / 2
    for item in found:
        assert np.abs(item.image[30:, 30:].mean((0, 1)) - expected).max() < 4


def test_an_overlay_video_takes_odd_sizes_other_sizes_and_stamps_that_go_back(tmp_path):
    pytest.importorskip('av')
    sink = open_sink(str(tmp_path / 'out.mp4'), CLASSES)
    for number, size in ((10, (47, 63)), (11, (47, 63)), (0, (94, 126)), (1, (94, 126))):
        item = frame(number, size)
        sink.write(item, result(item))
    sink.close()
    source = open_source(str(tmp_path / 'out.mp4'))
    found = list(source)
    source.close()
    assert [item.size for item in found] == [(48, 64)] * 4
    assert [item.stamp_ns for item in found] == [0, 40_000_000, 80_000_000, 120_000_000]


TICKS = 60_000  # of a video, per second


def times_of_video(path, stamps_ns):
    """When the frames of a video come that was written from frames with these stamps, in nanoseconds."""
    with open_sinks([str(path)], CLASSES) as [sink]:
        for stamp_ns in stamps_ns:
            sink.write(Frame(frame().image, stamp_ns), result(frame()))
    source = open_source(str(path))
    found = np.array([item.stamp_ns for item in source])
    source.close()
    return found


def test_a_video_keeps_times_that_are_no_whole_milliseconds(tmp_path):
    pytest.importorskip('av')
    stamps = [number * 10**9 // 30 for number in range(8)]
    assert np.abs(times_of_video(tmp_path / 'a.mp4', stamps) - stamps).max() <= 1e9 / TICKS / 2 + 1


def test_a_video_keeps_an_hour_between_two_frames_and_shows_both_of_one_stamp(tmp_path):
    pytest.importorskip('av')
    hour = 3600 * 10**9
    found = times_of_video(tmp_path / 'a.mp4', [0, 0, hour, 2 * hour + 10**9])
    assert found.tolist() == [0, 40_000_000, hour + 40_000_000, hour + 80_000_000]


@pytest.mark.parametrize('size', [(47, 64), (48, 63)])
def test_a_video_of_frames_with_one_odd_side_has_one_more_row_or_column(tmp_path, size):
    pytest.importorskip('av')
    with open_sinks([f'{tmp_path}/a.mp4'], CLASSES) as [sink]:
        sink.write(frame(size=size), result(frame(size=size)))
    source = open_source(f'{tmp_path}/a.mp4')
    assert [item.size for item in source] == [(48, 64)]
    source.close()


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
def test_years_between_two_stamps_are_no_years_of_video(tmp_path, name):
    pytest.importorskip('av')
    path = tmp_path / name
    sink = open_sink(str(path), CLASSES)
    for stamp_ns in (0, 1_700_000_000 * 10**9, 1_700_000_000 * 10**9 + 40_000_000):  # a camera sets its clock
        sink.write(Frame(frame().image, stamp_ns), result(frame()))
    sink.close()
    stamps = [item.stamp_ns for item in open_source(str(path))]
    assert np.allclose(stamps, [0, 40e6, 80e6], atol=1e6)


def test_a_video_of_no_frames_is_no_file(tmp_path):
    pytest.importorskip('av')
    open_sink(str(tmp_path / 'out.mp4'), CLASSES).close()
    assert os.listdir(tmp_path) == []


def test_an_overlay_mixes_colours_and_leaves_the_unlabelled_alone():
    image = np.full((2, 2, 3), 100, np.uint8)
    mask = np.array([[0, 8], [255, 255]], np.uint8)
    picture = overlay(image, mask, CLASSES, 0.25)
    assert picture[0].tolist() == [[107, 107, 107], [107, 75, 91]]
    assert (picture[1] == 100).all()
    with pytest.raises(ShapeError, match=r'mask is \(2, 2\), the image \(3, 2\)'):
        overlay(np.zeros((3, 2, 3), np.uint8), mask, CLASSES, 0.5)


@pytest.mark.parametrize('alpha', [0, 0.1, 0.3, 0.5, 0.7, 1])
def test_no_value_of_an_unlabelled_pixel_is_changed_by_an_overlay(alpha):
    image = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    before, unlabelled = image.copy(), np.full((16, 16), 255, np.uint8)
    assert np.array_equal(overlay(image, unlabelled, CLASSES, alpha), before)
    overlay(image, np.zeros_like(unlabelled), CLASSES, alpha)
    assert np.array_equal(image, before)


def test_a_picture_of_a_result_tells_key_from_propagated_and_takes_small_masks():
    item = frame()
    small = result(frame(size=(12, 16)))
    key = overlay_result(item.image, small, CLASSES, 0.5)
    later = overlay_result(item.image, result(item, age=4), CLASSES, 0.5)
    assert key.shape == item.image.shape
    assert np.array_equal(key[30:], later[30:])
    assert not np.array_equal(key[:20], later[:20])


def test_scores_are_those_of_all_frames_with_truth_and_of_each_age(tmp_path):
    sink = open_sink(str(tmp_path / 'scores.json'), CLASSES)
    truth = np.full((48, 64), 3, np.uint8)
    truth[:, :16] = 255
    for label, age, known in ((3, 0, truth), (3, 1, truth), (8, 1, truth), (8, 2, None)):
        item = frame(truth=known)
        sink.write(item, result(item, label, age))
    sink.close()
    scores = json.loads((tmp_path / 'scores.json').read_text())
    assert scores['frames'] == 3
    assert scores['iou_percent']['road'] == 66.67
    assert scores['iou_percent']['sky'] is None
    assert scores['miou_percent'] == 33.33
    assert scores['miou_percent_by_age'] == {'0': 100.0, '1': 25.0}


def test_scores_by_age_stand_in_the_order_of_the_ages_in_whatever_order_these_came():
    sink = ScoreSink(CLASSES)
    item = frame(truth=np.full((48, 64), 3, np.uint8))
    for age in (10, 2, 0):
        sink.write(item, result(item, age=age))
    assert list(sink.report()['miou_percent_by_age']) == ['0', '2', '10']


def test_scores_without_a_label_are_warned_of(tmp_path, caplog):
    open_sink(str(tmp_path / 'scores.json'), CLASSES).close()
    assert json.loads((tmp_path / 'scores.json').read_text())['miou_percent'] is None
    assert 'no frame had a label; give --labels or --mask-topic' in caplog.text


@pytest.mark.parametrize(('ids', 'told'), [([11, 30], 1), ([255, 10], 0)])
def test_scores_against_ids_that_are_no_class_can_be_told(caplog, ids, told):
    sink = ScoreSink(CLASSES)
    truth = np.full((48, 64), 3, np.uint8)
    truth[:6] = ids[0]
    truth[6:12] = ids[1]
    for _ in range(2):
        sink.write(frame(truth=truth), result(frame()))
    sink.truth_ids.tell_strange('drive')
    assert len(caplog.records) == told
    if told:
        assert (
            '25 % of the labelled pixels have ids that are no class of camvid11: 11, 30; they' in caplog.text
        )


def test_scores_of_no_frames_are_none():
    assert ScoreSink(CLASSES).report()['miou_percent'] is None


def test_scores_are_taken_at_the_size_of_the_truth():
    sink = ScoreSink(CLASSES)
    item = frame(truth=np.full((48, 64), 3, np.uint8))
    sink.write(item, result(frame(size=(12, 16))))
    assert sink.total.miou() == 1


def test_timings_are_kept_by_kind_and_stage():
    sink = TimingSink()
    for age in (0, 1, 2, 0):
        sink.write(frame(), result(frame(), age=age))
    assert (sink.count('key'), sink.count('propagated')) == (2, 2)
    assert sink.percentile('key', 50) == 3
    assert sink.percentile('propagated', 50, 'a') == 2.5
    assert np.isnan(sink.percentile('key', 50, 'warp'))


def test_frames_of_which_some_regions_were_computed_in_full_are_a_kind_of_their_own():
    sink = TimingSink()
    for keys in ((True, False), (False, False), ()):
        sink.write(frame(), dataclasses.replace(result(frame(), age=1), key_regions=keys))
    assert [sink.count(kind) for kind in ('key', 'mixed', 'propagated')] == [0, 1, 2]


@pytest.mark.parametrize('name', ['out.avi', 'out', 'out.bag'])
def test_an_output_of_no_known_kind_is_refused_with_the_kinds(tmp_path, name):
    with pytest.raises(SettingsError, match=r'is of no kind known here; use NAME\.mp4 or'):
        open_sink(str(tmp_path / name), CLASSES)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('name', ['out.mp4', 'out.json'])
def test_a_file_is_not_replaced_unless_asked(tmp_path, name):
    pytest.importorskip('av')
    (tmp_path / name).write_text('mine')
    with pytest.raises(SettingsError, match=f'{name} exists; choose another name or add --overwrite'):
        open_sink(str(tmp_path / name), CLASSES)
    sink = open_sink(str(tmp_path / name), CLASSES, overwrite=True)
    sink.write(frame(), result(frame()))
    assert (tmp_path / name).read_text() == 'mine', 'until the new one is complete'
    sink.close()
    assert (tmp_path / name).read_bytes() != b'mine'


@pytest.mark.parametrize('spec', ['bag:{}', '{}/out.mcap', '{}/out.mp4', '{}/out.json'])
def test_a_folder_of_other_files_is_never_replaced(tmp_path, spec):
    folder = tmp_path / 'mine'
    spec = spec.format(folder)
    kept = (folder if spec.startswith('bag:') else Path(spec)) / 'photo.jpg'
    kept.parent.mkdir(parents=True)
    kept.touch()
    with pytest.raises(SettingsError, match='is a folder that holds no bag and is not replaced'):
        open_sink(spec, CLASSES, overwrite=True)
    assert kept.exists()


def test_a_bag_that_becomes_a_folder_never_takes_the_place_of_a_file(tmp_path):
    pytest.importorskip('rosbags')
    (tmp_path / 'mine').write_text('mine')
    with pytest.raises(SettingsError, match='is a file, and the bag becomes a folder'):
        open_sink(f'bag:{tmp_path / "mine"}', CLASSES, overwrite=True)
    assert (tmp_path / 'mine').read_text() == 'mine'


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'photo.jpg').touch()
    with pytest.raises(SettingsError, match='mine is a folder; name a file in it'):
        write_file(tmp_path / 'mine', 'figures')
    assert (tmp_path / 'mine' / 'photo.jpg').exists()


@pytest.mark.parametrize('alpha', [1.5, -0.1, float('nan')])
def test_an_alpha_out_of_range_is_refused(tmp_path, alpha):
    pytest.importorskip('av')
    with pytest.raises(SettingsError, match=f'alpha is {alpha}; use a value from 0'):
        open_sink(str(tmp_path / 'out.mp4'), CLASSES, alpha=alpha)
    assert os.listdir(tmp_path) == []


def test_a_video_may_show_only_the_image_or_only_the_colours(tmp_path):
    pytest.importorskip('av')
    for alpha, expected in ((0, [GREY] * 3), (1, CLASSES.colours[3][::-1])):
        with open_sinks([f'{tmp_path}/{alpha}.mp4'], CLASSES, alpha=alpha) as [sink]:
            sink.write(frame(), result(frame()))
        source = open_source(f'{tmp_path}/{alpha}.mp4')
        (item,) = source
        source.close()
        assert np.abs(item.image[30:, 30:].mean((0, 1)) - expected).max() < 4


@pytest.mark.parametrize(
    ('source', 'output'), [('7.PNG', '{}/'), ('', 'bag:{}/labels'), ('', 'bag:{}/images')]
)
def test_what_would_become_images_or_labels_of_the_source_is_refused(tmp_path, source, output):
    with pytest.raises(SettingsError, match='is where the source lies'):
        check_apart([output.format(tmp_path)], tmp_path / source)
    check_apart([f'{tmp_path}/scores.json', f'{tmp_path}/masks/'], tmp_path / source)


def outputs_in(folder):
    pytest.importorskip('av')
    pytest.importorskip('rosbags')
    return [f'{folder}/{name}' for name in ('a.mp4', 'b.mcap', 'c.json', 'masks/')] + [f'bag:{folder}/d']


def write_one_frame(folder, then):
    """Opens all kinds of sinks, writes a frame and does `then` before they are closed."""
    with open_sinks(outputs_in(folder), CLASSES) as sinks:
        for sink in sinks:
            sink.write(frame(), result(frame()))
        then()


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize('inner', ['masks/', 'o.mp4', 'o.json', 'o.mcap', 'bag:deep/bag'])
@pytest.mark.parametrize('overwrite', [False, True])
def test_no_output_lies_within_another_that_takes_its_place_as_a_whole(tmp_path, inner, overwrite):
    kind, colon, name = inner.rpartition(':')
    outer, spec = f'bag:{tmp_path}/out', f'{kind}{colon}{tmp_path}/out/{name}'
    for specs in ([outer, spec], [spec, outer]):
        with (
            pytest.raises(SettingsError, match=rf'{spec} is in {outer}, another output; name another place'),
            open_sinks(specs, CLASSES, overwrite=overwrite),
        ):
            pass
    assert os.listdir(tmp_path) == []


def test_other_outputs_may_lie_among_the_masks(tmp_path):
    with open_sinks([f'{tmp_path}/out/', f'{tmp_path}/out/s.json'], CLASSES) as sinks:
        for sink in sinks:
            sink.write(frame(), result(frame()))
    assert visible(tmp_path / 'out') == ['000000.png', 's.json']


@pytest.mark.parametrize('name', ['bag:{}', '{}.json'])
def test_files_that_came_to_lie_where_an_output_goes_are_not_replaced_at_the_end(tmp_path, name):
    pytest.importorskip('rosbags')
    spec = name.format(tmp_path / 'out')
    folder = Path(spec.removeprefix('bag:'))

    def run():
        with open_sinks([spec], CLASSES, overwrite=True) as [sink]:
            sink.write(frame(), result(frame()))
            folder.mkdir()
            (folder / 'photo.jpg').touch()

    with pytest.raises(SettingsError, match='is a folder that holds no bag and is not replaced'):
        run()
    assert os.listdir(tmp_path) == [folder.name]
    assert os.listdir(folder) == ['photo.jpg']


def test_an_error_in_the_middle_leaves_no_output(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_one_frame(tmp_path, then=interrupt)
    assert os.listdir(tmp_path) == ['masks'], 'masks are complete one by one'


def test_an_output_that_cannot_be_opened_leaves_none_of_the_others(tmp_path):
    with pytest.raises(SettingsError), open_sinks([*outputs_in(tmp_path), 'wrong.txt'], CLASSES):
        pass
    assert os.listdir(tmp_path) == []


def test_an_output_that_cannot_be_completed_leaves_no_half_of_it(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError('no space left')

    with pytest.raises(OSError, match='no space'):
        write_one_frame(tmp_path, then=lambda: monkeypatch.setattr(Draft, 'publish', no_space))
    assert os.listdir(tmp_path) == ['masks']


@pytest.mark.parametrize('spec', ['', 'bag:', 'bag:.', 'bag:..'])
def test_an_output_without_a_name_is_refused(tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match='names nothing that can be written'):
        open_sink(spec, CLASSES, overwrite=True)
    assert os.listdir(tmp_path) == []


def test_an_overlay_may_lie_in_a_folder_named_by_the_time(tmp_path, monkeypatch):
    pytest.importorskip('av')
    monkeypatch.chdir(tmp_path)
    with open_sinks(['2026-11-29T10:00:00/drive.mp4'], CLASSES) as sinks:
        sinks[0].write(frame(), result(frame()))
    assert visible(tmp_path / '2026-11-29T10:00:00') == ['drive.mp4']


def test_masks_of_two_runs_are_not_mixed_in_one_folder(tmp_path):
    first, second = (open_sink(f'{tmp_path}/masks/', CLASSES) for _ in range(2))
    first.write(frame(), result(frame(), label=3))
    with pytest.raises(SettingsError, match=r'000000.png exists'):
        second.write(frame(), result(frame(), label=4))


def test_scores_that_cannot_be_written_are_refused_before_the_first_frame(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='file'):
        open_sink(f'{tmp_path}/file/scores.json', CLASSES)


def test_scores_of_a_run_that_failed_leave_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), open_sinks([f'{tmp_path}/scores.json'], CLASSES):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
