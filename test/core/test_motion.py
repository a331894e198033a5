import sys
from collections import Counter

import cv2
import numpy as np
import pytest

from vss_ros.core.motion import make_motion
from vss_ros.core.motion.blocks import flow_of_blocks
from vss_ros.core.motion.dis import DisFlow, cells_of
from vss_ros.core.motion.followed import FollowedMotion, compose, read_at
from vss_ros.core.synthetic import StreetClip

SIZES = [(96, 128), (90, 121), (101, 99)]  # (height, width); odd ones too
DIS = ['dis', 'dis_third', 'dis_half']
KINDS = [*DIS, 'motion_vectors']


@pytest.fixture(params=KINDS)
def motion(request):
    if request.param == 'motion_vectors':
        pytest.importorskip('av')
    return make_motion(request.param)


def texture(seed, height=160, width=200):
    """A soft random texture, uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def cut(image, size, right=0, down=0):
    """A window of `image`, moved so that what it shows moves `right` and `down` in the window."""
    top, left = 24 - down, 24 - right
    return np.ascontiguousarray(image[top : top + size[0], left : left + size[1]])


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(('right', 'down'), [(8, 0), (0, 4), (-6, 3), (0, 0)])
def test_flow_points_from_the_current_to_the_previous_image_in_cells(motion, size, right, down):
    image = texture(1)
    motion.update(cut(image, size), wanted=False)
    flow = motion.update(cut(image, size, right, down), wanted=True)
    assert flow.dtype == np.float32
    assert flow.shape == (1, 2, -(-size[0] // 4), -(-size[1] // 4))
    inner = flow[0, :, 4:-4, 4:-4]
    # What moved right by 8 pixels was 2 cells further left before.
    assert np.median(inner[0]) == pytest.approx(-right / 4, abs=0.1)
    assert np.median(inner[1]) == pytest.approx(-down / 4, abs=0.1)


def test_the_images_of_key_frames_are_remembered_though_their_flow_is_not_wanted(motion):
    image = texture(2)
    motion.update(cut(image, (96, 128)), wanted=False)
    assert motion.update(cut(image, (96, 128), right=16), wanted=False) is None
    flow = motion.update(cut(image, (96, 128), right=20), wanted=True)
    assert np.median(flow[0, 0]) == pytest.approx(-1, abs=0.1)


def test_there_is_no_flow_to_the_first_image_of_a_stream(motion):
    image = texture(3)
    assert motion.update(cut(image, (96, 128)), wanted=True) is None
    assert motion.update(cut(image, (96, 128), right=4), wanted=True) is not None
    motion.reset()
    assert motion.update(cut(image, (96, 128), right=8), wanted=True) is None
    assert motion.update(cut(image, (96, 128), right=4), wanted=True) is not None


def test_a_cut_to_a_picture_unlike_the_last_has_no_motion_vectors():
    pytest.importorskip('av')
    motion = make_motion('motion_vectors')
    noise = np.random.default_rng(4).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    motion.update(noise, wanted=False)
    assert motion.update(cut(texture(5), (96, 128)) // 8, wanted=True) is None
    assert motion.update(cut(texture(5), (96, 128), right=2) // 8, wanted=True) is not None


@pytest.mark.parametrize('seed', [0, 1])
def test_a_cut_between_scenes_with_as_much_structure_has_no_motion_vectors(seed):
    pytest.importorskip('av')
    motion = make_motion('motion_vectors')
    before, after = StreetClip(seed, 2, 96, 128), StreetClip(seed + 50, 2, 96, 128)
    first, second, other = before[0].image, before[1].image, 255 - after[0].image
    motion.update(first, wanted=False)
    assert motion.update(second, wanted=True) is not None
    assert motion.update(other, wanted=True) is None


@pytest.mark.parametrize('kind', DIS)
@pytest.mark.parametrize('size', [(4, 8), (8, 8), (20, 280), (280, 20), (40, 40), (63, 95)])
def test_dis_takes_images_of_any_size(kind, size):
    motion = make_motion(kind)
    image = texture(7, 320, 360)
    motion.update(cut(image, size), wanted=False)
    flow = motion.update(cut(image, size, right=4), wanted=True)
    assert flow.shape == (1, 2, -(-size[0] // 4), -(-size[1] // 4))
    assert np.isfinite(flow).all()
    if min(size) >= 40:
        assert np.median(flow[0, 0]) == pytest.approx(-1, abs=0.3)


def test_masks_carried_along_flow_that_was_searched_at_a_larger_size_keep_their_outlines_better():
    wrong = dict.fromkeys(DIS, 0.0)
    for seed in range(4):
        clip = StreetClip(seed, 4, 360, 480)
        frames = [clip[index] for index in range(len(clip))]
        for kind in DIS:
            motion = make_motion(kind)
            motion.update(frames[0].image, wanted=False)
            for frame in frames[1:]:
                flow = motion.update(frame.image, wanted=True, stays=True)
                wrong[kind] += (carried(frames[0].mask, flow) != frame.mask).mean()
    assert wrong['dis_third'] < 0.95 * wrong['dis']
    assert wrong['dis_half'] < 0.95 * wrong['dis_third']
    assert wrong['dis_half'] < 0.9 * wrong['dis']


def carried(mask, flow):
    """The mask of the anchor, read where the flow of the 1/4 map points."""
    finer = [4 * cv2.resize(part, mask.shape[::-1]) for part in flow[0]]
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
    return cv2.remap(
        mask, columns + finer[0], rows + finer[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    )


def drive_past(motion, speeds):
    """The median flow across, in cells, to each image of a texture that moves by so many pixels."""
    image, right = texture(9, 160, 1600), -1200
    motion.update(cut(image, (96, 240), right), wanted=False)
    found = []
    for speed in speeds:
        right += speed
        found.append(float(np.median(motion.update(cut(image, (96, 240), right), wanted=True)[0, 0])))
    return found


def test_dis_follows_what_grows_faster_than_it_can_find_at_once():
    speeds = [16, 24, 32, 40, 48, 56]
    assert drive_past(make_motion('dis'), speeds) == pytest.approx([-speed / 4 for speed in speeds], abs=0.1)
    assert drive_past(make_motion('dis'), speeds[-1:]) != pytest.approx([-14], abs=5)


def test_dis_notices_a_sudden_stop():
    found = drive_past(make_motion('dis'), [16, 24, 32, 40, 48, 56, 0, 0, 0])
    assert found[-1] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize('kind', [*DIS, 'stream'])
def test_dis_forgets_the_motion_of_a_stream_that_ended(kind):
    motion = make_motion(kind)
    drive_past(motion, [16, 24, 32, 40, 48, 56])
    motion.reset()
    assert drive_past(motion, [56, 4]) == drive_past(make_motion(kind), [56, 4])


@pytest.mark.parametrize('kind', DIS)
def test_flow_that_was_found_stays_as_it_is_when_the_next_one_is(kind):
    motion, image = make_motion(kind), texture(9)
    _, flow, _ = (motion.update(cut(image, (96, 128), right), wanted=True) for right in (0, 4, 16))
    assert np.median(flow[0, 0]) == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize('kind', DIS)
@pytest.mark.parametrize('start', [np.nan, np.inf, 1e9])
def test_dis_never_begins_where_it_could_not_come_back_from(start, kind):
    flow, image = DisFlow(kind), texture(10)
    before, now = (cells_of(cut(image, (96, 128), right), flow.finer) for right in (0, 8))
    flow.between(now, before)
    flow._found[:] = start
    for _ in range(4):
        found = flow.between(now, before)
    assert np.median(found[0, 0]) == pytest.approx(-2, abs=0.1)


@pytest.mark.parametrize('kind', [*DIS, 'stream'])
def test_dis_starts_over_with_images_of_another_size(kind):
    motion, image = make_motion(kind), texture(8)
    for right in (0, 4):
        motion.update(cut(image, (96, 128), right), wanted=True)
    assert motion.update(cut(image, (64, 80)), wanted=True) is None
    flow = motion.update(cut(image, (64, 80), right=4), wanted=True)
    assert np.median(flow[0, 0]) == pytest.approx(-1, abs=0.1)


def test_motion_vectors_adapt_to_a_new_image_size():
    pytest.importorskip('av')
    motion = make_motion('motion_vectors')
    image = texture(6)
    motion.update(cut(image, (96, 128)), wanted=False)
    assert motion.update(cut(image, (64, 80)), wanted=True) is None
    assert motion.update(cut(image, (64, 80), right=4), wanted=True).shape == (1, 2, 16, 20)


def test_blocks_without_a_vector_take_that_of_their_neighbours():
    fields = ['source', 'w', 'h', 'dst_x', 'dst_y', 'motion_x', 'motion_y', 'motion_scale']
    vectors = np.zeros(15, [(name, np.int32) for name in fields])  # 16 blocks of 16x16, the last unknown
    for number in range(len(vectors)):
        x, y = number % 4 * 16 + 8, number // 4 * 16 + 8
        vectors[number] = (-1, 16, 16, x, y, -16, 8, 2)
    flow = flow_of_blocks(vectors, 64, 64, 0.9)
    assert flow.shape == (1, 2, 16, 16)
    # -16/2 pixels are -2 cells, 8/2 pixels are 1 cell.
    assert np.allclose(flow[0, 0], -2)
    assert np.allclose(flow[0, 1], 1)
    assert flow_of_blocks(vectors[:14], 64, 64, 0.9) is None
    assert flow_of_blocks(vectors[:0], 64, 64, 0) is None


def vectors_of(*blocks):
    """FFmpeg's vectors, to the picture before, of blocks: left, top, width, height, motion in pixels."""
    fields = ['source', 'w', 'h', 'dst_x', 'dst_y', 'motion_x', 'motion_y', 'motion_scale']
    vectors = np.zeros(len(blocks), [(name, np.int32) for name in fields])
    for number, (left, top, width, height, motion) in enumerate(blocks):
        middle = left + width // 2, top + height // 2
        vectors[number] = (-1, width, height, *middle, *(4 * each for each in motion), 4)
    return vectors


MIXED = [  # every size that a block may have, in a picture of 32x24; only 8x8 at 24, 16 has no vector
    (0, 0, 16, 16, (1, 2)),
    (16, 0, 16, 8, (3, 4)),
    (16, 8, 16, 8, (5, 6)),
    (0, 16, 8, 16, (7, 8)),
    (8, 16, 8, 16, (9, 10)),
    (16, 16, 8, 8, (11, 12)),
]


def test_each_block_moves_only_the_cells_that_it_covers():
    flow = flow_of_blocks(vectors_of(*MIXED), 24, 32, 0.9)
    assert flow.shape == (1, 2, 6, 8)
    for left, top, width, height, motion in MIXED:
        covered = flow[0, :, top // 4 : (top + height) // 4, left // 4 : (left + width) // 4]
        assert np.array_equal(4 * covered, np.broadcast_to(np.reshape(motion, (2, 1, 1)), covered.shape))
    assert flow_of_blocks(vectors_of(*MIXED), 24, 32, 0.92) is None, '11 of 12'


@pytest.mark.parametrize('place', [(-16, 0), (0, -16), (32, 0), (0, 32)])
def test_blocks_that_lie_outside_the_picture_move_nothing(place):
    outside = (*place, 16, 16, (99, 99))
    found, expected = (
        flow_of_blocks(vectors_of(*blocks), 24, 32, 0.9) for blocks in ([*MIXED, outside], MIXED)
    )
    assert np.array_equal(found, expected)


def test_vectors_to_a_later_picture_do_not_count():
    vectors = vectors_of(*MIXED, *MIXED)
    vectors['source'][len(MIXED) :] = 1
    vectors['motion_x'][len(MIXED) :] = 99
    expected = flow_of_blocks(vectors_of(*MIXED), 24, 32, 0.9)
    assert np.array_equal(flow_of_blocks(vectors, 24, 32, 0.9), expected)
    assert flow_of_blocks(vectors[len(MIXED) :], 24, 32, 0.9) is None


def blocks_of_4k(is_known):
    """Vectors of the blocks of 16x16 of a picture of 3840x2160; each points as far left as it is down."""
    y, x = (axis.ravel() * 16 + 8 for axis in np.indices((135, 240)))
    known = is_known(x, y)
    fields = {'source': -1, 'w': 16, 'h': 16, 'dst_x': x, 'dst_y': y, 'motion_x': -y, 'motion_y': 0}
    vectors = np.zeros(len(x), [(name, np.int32) for name in [*fields, 'motion_scale']])
    for name, values in fields.items():
        vectors[name] = values
    return vectors[known]


def calls(vectors):
    """How many functions of libraries and of Python itself are called."""
    counted = Counter()
    sys.setprofile(lambda frame, event, argument: counted.update([event]))
    try:
        flow_of_blocks(vectors, 2160, 3840, 0.35)
    finally:
        sys.setprofile(None)
    return counted['c_call']


def test_how_large_an_area_without_vectors_is_makes_no_more_work():
    small, large = (blocks_of_4k(lambda x, y, share=share: x < share * 3840) for share in (0.95, 0.36))
    assert calls(large) == calls(small)  # growing what is known ring by ring they were many times as many


def test_blocks_without_vectors_take_that_of_the_nearest_ones():
    flow = flow_of_blocks(blocks_of_4k(lambda x, y: (x < 1500) | (x > 3000)), 2160, 3840, 0.35)[0, 0]
    rows = np.arange(540)
    of_block = -(rows // 4 * 16 + 8) / 4
    assert np.abs(flow[20:-20] - of_block[20:-20, None]).max() <= 16 / 4  # within a block's step


def drive(motion, shifts, stays):
    """How far a texture has come, in pixels, that is shown so far to the right; first on a key frame."""
    image = texture(11, width=320)
    motion.update(cut(image, (96, 240), shifts[0]), wanted=False)
    return [
        -4 * float(np.median(motion.update(cut(image, (96, 240), shift), True, stays=stays)[0, 0]))
        for shift in shifts[1:]
    ]


def test_flow_leads_to_the_anchor_as_long_as_it_stays(motion):
    assert drive(motion, [0, 4, 8, 12], stays=True) == pytest.approx([4, 8, 12], abs=1)


def test_otherwise_each_image_is_the_anchor_of_the_next_one(motion):
    assert drive(motion, [0, 4, 8, 12], stays=False) == pytest.approx([4, 4, 4], abs=0.5)


def test_an_image_can_be_made_the_anchor_afterwards(motion):
    drive(motion, [0, 4, 8], stays=True)
    motion.anchor()
    image = texture(11, width=320)
    flow = motion.update(cut(image, (96, 240), 14), wanted=True, stays=True)
    assert -4 * np.median(flow[0, 0]) == pytest.approx(6, abs=0.5)


def test_an_image_that_was_marked_can_be_made_the_anchor_later(motion):
    image = texture(11, width=320)
    drive(motion, [0, 4], stays=False)
    motion.mark()
    for shift in (8, 12):  # whatever is the anchor meanwhile
        motion.update(cut(image, (96, 240), shift), wanted=True, stays=shift == 12)
    motion.anchor_at_mark()
    flow = motion.update(cut(image, (96, 240), 16), wanted=True)
    assert -4 * np.median(flow[0, 0]) == pytest.approx(12, abs=1)


def test_the_way_to_the_anchor_is_lost_where_one_step_is(motion):
    image = texture(11, width=320)
    drive(motion, [0, 4], stays=True)
    assert motion.update(cut(image, (96, 240), 8), wanted=False, stays=True) is None
    assert motion.update(cut(image, (96, 240), 12), wanted=True, stays=True) is None
    motion.anchor()
    assert motion.update(cut(image, (96, 240), 16), wanted=True, stays=True) is not None


def plain_reading(maps, flow):
    """What `read_at` gives, cell by cell; beyond the border the border cell is read."""
    (_, _, height, width), found = maps.shape, np.empty_like(maps)
    for row in range(height):
        for column in range(width):
            x = min(max(column + flow[0, 0, row, column], 0), width - 1)
            y = min(max(row + flow[0, 1, row, column], 0), height - 1)
            left, top = min(int(x), width - 2), min(int(y), height - 2)
            cells = maps[0, :, top : top + 2, left : left + 2]
            upper, lower = ((1 - (x - left)) * cells[..., 0] + (x - left) * cells[..., 1]).T
            found[0, :, row, column] = (1 - (y - top)) * upper + (y - top) * lower
    return found


def some_flow(seed, cells=3):
    """Flow of all directions, some of it out of the map; OpenCV reads at steps of 1/32 of a cell."""
    rng = np.random.default_rng(seed)
    return (rng.integers(-32 * cells, 32 * cells, (1, 2, 7, 9)) / 32).astype(np.float32)


def test_maps_are_read_where_the_flow_points_and_at_the_border_beyond_it():
    maps, flow = some_flow(0), some_flow(1)
    assert np.allclose(read_at(maps, flow), plain_reading(maps, flow), atol=1e-5)


class Steps:
    """Gives these flows from each image to the one before."""

    def __init__(self, flows):
        self._flows = iter(flows)

    def update(self, image, wanted, coded=()):
        return next(self._flows)


def test_the_way_to_the_anchor_follows_one_flow_after_the_other():
    """Each from where the later one leads to, so that their order counts."""
    steps = [some_flow(seed) for seed in range(3)]
    motion = FollowedMotion(Steps([None, *steps]))
    found = [motion.update(None, wanted=True, stays=number > 0) for number in range(4)]
    way = steps[0]
    assert np.array_equal(found[1], way)
    for step, flow in zip(steps[1:], found[2:], strict=True):
        way = step + plain_reading(way, step)
        assert np.allclose(flow, way, atol=1e-4)
    assert not np.allclose(compose(steps[0], steps[1]), compose(steps[1], steps[0]), atol=0.1)


def test_an_encoder_does_not_begin_anew_while_a_stream_lasts():
    """Else there would be no flow, and one key frame more, every so many frames."""
    pytest.importorskip('av')
    motion, image = make_motion('motion_vectors'), texture(12)
    found = [motion.update(cut(image, (32, 48), right=number % 8), wanted=True) for number in range(100)]
    assert [number for number, flow in enumerate(found) if flow is None] == [0]
