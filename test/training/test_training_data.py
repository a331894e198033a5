from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest

from vss_ros.core.errors import SourceError
from vss_ros.core.frame import UNLABELLED
from vss_ros.core.resize import fit
from vss_ros.training.augment import paste_objects, random_window, recolour, recolour_clip, view
from vss_ros.training.data import LabelledImages, class_frequencies, digest, load_folder


def write_pair(folder, name, height=24, width=32, label_size=None):
    (folder / 'images').mkdir(exist_ok=True, parents=True)
    (folder / 'labels').mkdir(exist_ok=True)
    cv2.imwrite(str(folder / 'images' / f'{name}.png'), np.full((height, width, 3), 90, np.uint8))
    cv2.imwrite(str(folder / 'labels' / f'{name}.png'), np.full(label_size or (height, width), 3, np.uint8))


def named(names):
    blank = [np.zeros((2, 2, 3), np.uint8)] * len(names)
    return LabelledImages(names, blank, [image[..., 0] for image in blank])


def test_the_last_piece_of_every_sequence_is_kept_aside():
    names = [f'a_{i}' for i in range(10)] + [f'b_{i}' for i in range(20)]
    kept, aside = named(names).split(0.1)
    assert list(aside.names) == ['a_9', 'b_18', 'b_19']
    assert sorted([*kept.names, *aside.names]) == sorted(names)


def test_nothing_is_kept_aside_when_the_share_is_zero():
    kept, aside = named(['a_1', 'a_2']).split(0.0)
    assert (len(kept), len(aside)) == (2, 0)


def test_images_of_another_size_are_brought_to_the_size_asked_for(tmp_path):
    write_pair(tmp_path, 'x_1')
    images = load_folder(tmp_path, 12, 16, 11)
    assert images.images[0].shape == (12, 16, 3)
    assert images.labels[0].shape == (12, 16)
    assert (images.labels[0] == 3).all()


def test_images_that_are_smaller_are_enlarged_as_at_run_time_not_into_blocks(tmp_path):
    write_pair(tmp_path, 'x_1')
    steps = np.broadcast_to(np.arange(0, 256, 8, np.uint8)[:, None], (24, 32, 3))
    cv2.imwrite(str(tmp_path / 'images' / 'x_1.png'), steps)
    [image] = load_folder(tmp_path, 48, 64, 11).images
    assert np.array_equal(image, fit(steps, (48, 64)))
    assert len(np.unique(image)) > 32


def test_a_folder_without_images_says_what_it_should_hold(tmp_path):
    with pytest.raises(SourceError, match='images/'):
        load_folder(tmp_path, 12, 16, 11)


def test_a_label_of_another_size_than_its_image_is_refused_by_name(tmp_path):
    write_pair(tmp_path, 'x_1', label_size=(5, 5))
    with pytest.raises(SourceError, match='x_1'):
        load_folder(tmp_path, 12, 16, 11)


def test_a_label_with_an_id_that_is_no_class_is_refused_by_name(tmp_path):
    write_pair(tmp_path, 'x_1')
    with pytest.raises(SourceError, match=r'x_1\.png has the class id 3; use 0 to 2'):
        load_folder(tmp_path, 12, 16, 3)


def test_labels_that_label_nothing_are_warned_of(tmp_path, caplog):
    write_pair(tmp_path, 'x_1')
    write_pair(tmp_path, 'x_2')
    cv2.imwrite(str(tmp_path / 'labels' / 'x_1.png'), np.full((24, 32), UNLABELLED, np.uint8))
    load_folder(tmp_path, 12, 16, 11)
    assert not caplog.text
    cv2.imwrite(str(tmp_path / 'labels' / 'x_2.png'), np.full((24, 32), UNLABELLED, np.uint8))
    load_folder(tmp_path, 12, 16, 11)
    assert f'{tmp_path / "labels"} labels no pixel: all are 255' in caplog.text


def test_a_label_of_16_bits_is_refused_by_name(tmp_path):
    write_pair(tmp_path, 'x_1')
    cv2.imwrite(str(tmp_path / 'labels' / 'x_1.png'), np.full((24, 32), 256, np.uint16))
    with pytest.raises(SourceError, match='x_1'):
        load_folder(tmp_path, 12, 16, 11)


def test_an_image_that_is_cut_off_is_refused_by_name_and_hidden_files_are_none(tmp_path):
    write_pair(tmp_path, 'x_1')
    (tmp_path / 'images' / '._x_1.jpg').write_bytes(b'of a Mac')
    assert load_folder(tmp_path, 12, 16, 11).names == ['x_1']
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    written = cv2.imencode('.jpg', noise)[1].tobytes()
    (tmp_path / 'images' / 'x_1.png').unlink()
    (tmp_path / 'images' / 'x_1.jpg').write_bytes(written[: len(written) // 2])
    with pytest.raises(SourceError, match=r'x_1\.jpg cannot be read: .*cut off'):
        load_folder(tmp_path, 12, 16, 11)


def test_frames_numbered_without_zeros_are_in_the_order_of_the_drive(tmp_path):
    for number in (1, 2, 9, 10):
        write_pair(tmp_path, f'x_{number}')
    assert load_folder(tmp_path, 12, 16, 11).names == ['x_1', 'x_2', 'x_9', 'x_10']


def test_a_digest_of_files_takes_any_name(tmp_path):
    names = [b'a.png', b'\xff.png']  # the second is no UTF-8
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(b'x')
    file = sha256(b'x').hexdigest().encode()
    assert digest([tmp_path]) == sha256(b''.join(name + b' ' + file + b'\n' for name in names)).hexdigest()


def test_an_image_without_a_label_is_refused_by_name(tmp_path):
    write_pair(tmp_path, 'x_1')
    (tmp_path / 'labels' / 'x_1.png').unlink()
    with pytest.raises(SourceError, match='x_1'):
        load_folder(tmp_path, 12, 16, 11)


def test_frequencies_leave_unlabelled_pixels_out():
    label = np.array([[0, 1], [1, UNLABELLED]], np.uint8)
    assert class_frequencies([label], 3) == pytest.approx([1 / 3, 2 / 3, 0])


def test_image_and_label_move_together():
    rng = np.random.default_rng(0)
    label = np.zeros((48, 64), np.uint8)
    label[10:30, 20:40] = 5
    image = np.repeat(label[..., None] * 40, 3, 2)
    for _ in range(5):
        seen, known = view(image, label, random_window(rng, 48, 64, (0.6, 2.0)))
        certain = (known == 5).astype(np.uint8)
        inside = cv2.erode(certain, np.ones((9, 9)), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
        assert (np.abs(seen[inside].astype(int) - 200) < 12).all()


def test_what_lies_beyond_the_image_is_unlabelled():
    window = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    _, known = view(np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8), window)
    assert (known[:8, :8] == 0).all()
    assert (known[12:] == UNLABELLED).all()


def test_pasting_copies_pixels_and_labels_of_the_chosen_classes_only():
    image, label = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    other = np.full((8, 8, 3), 200, np.uint8)
    other_label = np.zeros((8, 8), np.uint8)
    other_label[2:4, 2:4], other_label[6, 6] = 8, 1
    for seed in range(4):
        paste_objects(np.random.default_rng(seed), image, label, other, other_label, (8,))
    assert (label == np.where(other_label == 8, 8, 0)).all()
    assert ((image[..., 0] == 200) == (label == 8)).all()


def test_recolouring_depends_on_the_generator_alone():
    image = np.random.default_rng(1).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    same = [recolour(np.random.default_rng(7), image) for _ in range(2)]
    assert (same[0] == same[1]).all()
    assert same[0].dtype == np.uint8


def test_frames_of_a_clip_have_one_look_and_noise_of_their_own():
    still = [np.full((16, 16, 3), 128, np.uint8)] * 2
    noisy = 0
    for look in range(30):
        first, second = recolour_clip(look, still)
        again, _ = recolour_clip(look, still)
        assert (first == again).all()
        assert abs(first.mean() - second.mean()) < 4
        noisy += bool((first != second).any())
    assert 0 < noisy < 15  # a fifth of all looks
