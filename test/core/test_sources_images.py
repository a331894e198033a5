import os
import re

import cv2
import numpy as np
import pytest

from vss_ros.core.errors import SettingsError, SourceError
from vss_ros.core.sources.images import ImageSource
from vss_ros.core.sources.open import SourceSettings, open_source


def write(path, value, shape=(8, 12, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(shape, value, np.uint8))
    return path


def test_a_folder_gives_its_images_in_natural_order_at_the_rate(tmp_path):
    for number in (10, 9, 1, 100):
        write(tmp_path / f'frame_{number}.png', number)
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / '._frame_1.png').write_text('what a Mac remembers of it')
    source = ImageSource(tmp_path, rate=30)
    frames = list(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 9, 10, 100]
    assert [frame.stamp_ns for frame in frames] == [0, 33_333_333, 66_666_667, 100_000_000]
    assert len(source) == 4
    assert [frame.stamp_ns for frame in source] == [frame.stamp_ns for frame in frames], 'a second pass'


def test_digits_that_are_no_numbers_are_letters_of_a_name(tmp_path):
    for number, name in enumerate(('1.png', '1²2.png')):
        write(tmp_path / name, number)
    assert [int(frame.image[0, 0, 0]) for frame in ImageSource(tmp_path)] == [0, 1]


def test_one_image_is_a_source_of_one_frame(tmp_path):
    frames = list(open_source(str(write(tmp_path / 'one.jpg', 90))))
    assert len(frames) == 1
    assert frames[0].size == (8, 12)
    assert frames[0].truth is None


def test_labels_of_the_same_name_are_the_truth(tmp_path):
    for name in ('a', 'b'):
        write(tmp_path / 'images' / f'{name}.png', 5)
    write(tmp_path / 'labels' / 'b.png', 255, (8, 12))
    for source in (
        open_source(str(tmp_path)),
        open_source(str(tmp_path / 'images'), SourceSettings(labels=tmp_path / 'labels')),
    ):
        first, second = source
        assert first.truth is None
        assert (second.truth == 255).all()


def test_labels_with_the_name_of_no_image_are_told(tmp_path, caplog):
    for name in ('a', 'b'):
        write(tmp_path / 'images' / f'{name}.png', 5)
    for name in ('a', 'b_mask', 'c_mask'):
        write(tmp_path / 'labels' / f'{name}.png', 1, (8, 12))
    list(ImageSource(tmp_path / 'images' / 'a.png', labels=tmp_path / 'labels'))  # one of many was asked for
    assert not caplog.text
    assert sum(frame.truth is not None for frame in ImageSource(tmp_path)) == 1
    assert re.search(r'images: 2 of 3 labels have the name of no image, .*b_mask.png for', caplog.text)


def test_a_label_of_another_size_is_refused_by_name(tmp_path):
    write(tmp_path / 'images' / 'a.png', 5)
    write(tmp_path / 'labels' / 'a.png', 1, (8, 10))
    with pytest.raises(SourceError, match=r'labels/a.png is 10x8, its image 12x8'):
        list(ImageSource(tmp_path))


def test_a_coloured_label_is_refused_because_colours_are_not_ids(tmp_path):
    write(tmp_path / 'images' / 'a.png', 5)
    write(tmp_path / 'labels' / 'a.png', 1)
    with pytest.raises(SourceError, match=r'a.png is no label: .* expected an 8 bit grey PNG'):
        ImageSource(tmp_path, labels=tmp_path / 'labels')


def test_a_label_with_a_palette_is_refused_with_the_way_to_its_indices(tmp_path):
    image = pytest.importorskip('PIL.Image')
    write(tmp_path / 'images' / 'a.png', 5)
    label = tmp_path / 'labels' / 'a.png'
    label.parent.mkdir()
    ids = np.arange(96, dtype=np.uint8).reshape(8, 12) % 3
    indexed = image.fromarray(ids, mode='P')
    indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])  # as VOC has it
    indexed.save(label)
    with pytest.raises(
        SourceError, match=r'a.png is no label: .* it has a palette.* Image.fromarray'
    ) as told:
        ImageSource(tmp_path, labels=label.parent)
    advice = str(told.value).split('Pillow: ')[1]
    exec(advice, {'Image': image, 'numpy': np, 'FILE': label, 'OTHER_FILE': label})
    (frame,) = ImageSource(tmp_path)
    assert np.array_equal(frame.truth, ids)


def test_two_images_or_labels_of_one_name_are_refused(tmp_path):
    for name in ('a.png', 'b.png'):
        write(tmp_path / 'images' / name, 5)
        write(tmp_path / 'labels' / name, 1, (8, 12))
    (tmp_path / 'labels' / 'b.png').rename(tmp_path / 'labels' / 'a.PNG')
    with pytest.raises(SourceError, match=r'labels/a.PNG and \S+labels/a.png have one name.* take one away'):
        ImageSource(tmp_path / 'images', labels=tmp_path / 'labels')
    write(tmp_path / 'images' / 'b.jpg', 5)
    with pytest.raises(SourceError, match=r'images/b.jpg and \S+images/b.png have one name.* take one away'):
        open_source(str(tmp_path))


@pytest.mark.parametrize('name', ['a.png', 'b.png', 'a.txt'], ids=['colours', 'another name', 'text'])
def test_labels_that_nobody_asked_for_and_that_are_none_are_passed_over(tmp_path, caplog, name):
    write(tmp_path / 'images' / 'a.png', 5)
    write(tmp_path / 'labels' / 'label.png', 1).rename(tmp_path / 'labels' / name)
    (frame,) = ImageSource(tmp_path)
    assert frame.truth is None
    assert 'images are taken without labels' in caplog.text


def test_labels_that_fit_no_image_are_a_mistake(tmp_path):
    write(tmp_path / 'a.png', 5)
    write(tmp_path / 'labels' / 'a_L.png', 1, (8, 12))
    with pytest.raises(SourceError, match=r'has the name of an image .* for example a.png$'):
        ImageSource(tmp_path, labels=tmp_path / 'labels')


def test_labels_as_jpeg_are_no_labels_and_it_is_said_why(tmp_path):
    write(tmp_path / 'images' / 'a.png', 0)
    write(tmp_path / 'labels' / 'a.jpg', 1)
    with pytest.raises(SourceError, match=r'JPEG files are no labels, since JPEG changes ids$'):
        ImageSource(tmp_path, labels=tmp_path / 'labels')


@pytest.mark.parametrize('damage', [b'', b'\x89PNG\r\n\x1a\n', b'no image at all'])
def test_a_file_that_is_no_image_is_named(tmp_path, damage):
    write(tmp_path / '1.png', 5)
    (tmp_path / '2.png').write_bytes(damage)
    frames = iter(ImageSource(tmp_path))
    next(frames)
    with pytest.raises(SourceError, match=r'2\.png cannot be read: a compressed image'):
        next(frames)


def test_an_image_that_is_cut_off_is_refused(tmp_path):
    path = write(tmp_path / '1.png', 5, (200, 200, 3))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match=r'1\.png cannot be read: a PNG image is cut off'):
        list(ImageSource(tmp_path))


def test_what_is_no_file_or_too_large_for_an_image_is_never_read(tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')  # whose reader waits
    with pytest.raises(SourceError, match='holds no images'):
        open_source(str(tmp_path))
    with (tmp_path / 'a.png').open('wb') as file:
        file.truncate(2**40)
    with pytest.raises(SourceError, match=r'a.png has 1099511627776 bytes; no image .* has more than'):
        list(open_source(str(tmp_path)))


@pytest.mark.parametrize('spec', ['synthetic:' + 200 * '9', 'synthetic:1x' + 12 * '9'])
def test_numbers_without_end_are_no_synthetic_street(spec):
    with pytest.raises(SourceError, match='does not exist'):
        open_source(spec)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r'holds no images; expected files ending in .png'):
        open_source(str(tmp_path))


def test_what_does_not_exist_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r'nowhere does not exist; give a video'):
        open_source(str(tmp_path / 'nowhere'))
    with pytest.raises(SourceError, match='does not exist; give a folder of label PNGs'):
        ImageSource(write(tmp_path / 'a.png', 0), labels=tmp_path / 'nowhere')


def test_a_setting_that_the_source_does_not_have_is_refused(tmp_path):
    image = write(tmp_path / 'a.png', 0)
    with pytest.raises(SettingsError, match='is a folder of images, which has no topic; leave that out'):
        open_source(str(image), SourceSettings(topic='/image'))
    with pytest.raises(SettingsError, match='rate is 0; use a number'):
        open_source(str(image), SourceSettings(rate=0))


def test_a_synthetic_street_is_opened_by_seed_frames_and_size():
    source = open_source('synthetic:3x2', SourceSettings(rate=10, size=(48, 64)))
    frames = list(source)
    assert [frame.stamp_ns for frame in frames] == [0, 100_000_000]
    assert frames[0].size == (48, 64)
    assert frames[0].truth is not None
    assert np.array_equal(
        frames[1].image, list(open_source('synthetic:3x2', SourceSettings(10, size=(48, 64))))[1].image
    )
