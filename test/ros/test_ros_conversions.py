"""Messages to pictures and back, without a node."""

import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from vss_ros.core.encodings import PNG_END, SUPPORTED
from vss_ros.core.errors import FrameError
from vss_ros.ros import conversions
from vss_ros.ros.conversions import compressed_to_bgr, image_message, image_to_bgr, png_message

BGR_ORDERS = {'bgr8': [0, 1, 2], 'rgb8': [2, 1, 0], 'bgra8': [0, 1, 2, 3], 'rgba8': [2, 1, 0, 3]}
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
even_sizes = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(lambda size: (2 * size[0], 2 * size[1]))
paddings = st.integers(0, 9)
seeds = st.integers(0, 2**32 - 1)


def message_of(rows: np.ndarray, encoding: str, height: int, width: int, padding: int = 0, **fields) -> Image:
    """An Image from its rows of bytes, each followed by `padding` bytes of rubbish."""
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=171)
    message = Image(height=height, width=width, encoding=encoding, step=padded.shape[1], **fields)
    message.data.frombytes(padded.tobytes())
    return message


def random_picture(size, seed) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize('encoding', BGR_ORDERS)
@given(size=sizes, padding=paddings, seed=seeds)
def test_colour_images_come_in_as_they_are(encoding, size, padding, seed):
    picture = random_picture(size, seed)
    opaque = np.concatenate((picture, np.full((*size, 1), 255, np.uint8)), axis=2)
    rows = opaque[..., BGR_ORDERS[encoding]].reshape(size[0], -1)
    assert np.array_equal(image_to_bgr(message_of(rows, encoding, *size, padding)), picture)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
@given(size=sizes, padding=paddings, seed=seeds)
def test_grey_images_become_grey_colours(encoding, size, padding, seed):
    grey = random_picture(size, seed)[..., 0]
    result = image_to_bgr(message_of(grey, encoding, *size, padding))
    assert np.array_equal(result, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize('encoding', ['mono16', '16UC1'])
@given(size=sizes, padding=paddings, seed=seeds, big=st.booleans())
def test_16_bit_images_keep_their_high_byte_in_either_byte_order(encoding, size, padding, seed, big):
    values = np.random.default_rng(seed).integers(0, 65536, size, np.uint16)
    rows = values.astype('>u2' if big else '<u2').view(np.uint8).reshape(size[0], -1)
    result = image_to_bgr(message_of(rows, encoding, *size, padding, is_bigendian=int(big)))
    assert np.abs(result[..., 0] - values / 257.0).max() <= 0.5 + 1e-4


@pytest.mark.parametrize('encoding', ['yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv', 'nv12', 'nv21'])
@given(size=even_sizes, padding=paddings, seed=seeds)
@settings(max_examples=30)
def test_yuv_images_of_one_colour_come_in_as_that_colour(encoding, size, padding, seed):
    blue, green, red = (int(v) for v in np.random.default_rng(seed).integers(40, 216, 3))
    height, width = size
    y = round(16 + 0.257 * red + 0.504 * green + 0.098 * blue)
    u = round(128 - 0.148 * red - 0.291 * green + 0.439 * blue)
    v = round(128 + 0.439 * red - 0.368 * green - 0.071 * blue)
    if encoding in ('nv12', 'nv21'):
        chroma = np.tile([u, v] if encoding == 'nv12' else [v, u], (height // 2, width // 2))
        rows = np.concatenate((np.full((height, width), y), chroma))
    else:
        quad = [u, y, v, y] if encoding in ('yuv422', 'uyvy') else [y, u, y, v]
        rows = np.tile(quad, (height, width // 2))
    result = image_to_bgr(message_of(rows.astype(np.uint8), encoding, height, width, padding))
    assert result.shape == (*size, 3)
    assert np.abs(result.astype(int) - [blue, green, red]).max() <= 4


@pytest.mark.parametrize(
    ('encoding', 'colour_at'),
    [
        ('bayer_rggb8', {(0, 0): 2, (1, 1): 0}),
        ('bayer_bggr8', {(0, 0): 0, (1, 1): 2}),
        ('bayer_gbrg8', {(0, 1): 0, (1, 0): 2}),
        ('bayer_grbg8', {(0, 1): 2, (1, 0): 0}),
    ],
)
def test_bayer_patterns_put_red_and_blue_where_their_names_say(encoding, colour_at):
    blue, green, red = 30, 90, 220
    mosaic = np.full((16, 16), green, np.uint8)
    for (row, column), channel in colour_at.items():
        mosaic[row::2, column::2] = (blue, green, red)[channel]
    result = image_to_bgr(message_of(mosaic, encoding, 16, 16))
    assert np.array_equal(result[4:-4, 4:-4], np.broadcast_to([blue, green, red], (8, 8, 3)))


@pytest.mark.parametrize('extension', ['.png', '.jpg'])
@pytest.mark.parametrize(
    'described',
    ['bayer_rggb8; {} compressed bayer_rggb8', 'bayer_rggb8; {} compressed', 'bayer_rggb8; {} compressed '],
)
def test_a_bayer_mosaic_that_was_compressed_as_it_is_comes_in_with_its_colours(extension, described):
    blue, green, red = 30, 90, 220
    mosaic = np.full((16, 16), green, np.uint8)
    mosaic[::2, ::2], mosaic[1::2, 1::2] = red, blue
    message = CompressedImage(format=described.format({'.png': 'png', '.jpg': 'jpeg'}[extension]))
    message.data.frombytes(cv2.imencode(extension, mosaic, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes())
    inside = compressed_to_bgr(message)[4:-4, 4:-4].astype(int)
    assert np.abs(inside - [blue, green, red]).max() <= (0 if extension == '.png' else 6)


@pytest.mark.parametrize(
    'described', ['', 'png', 'bayer_rggb8; png compressed bgr8', 'bgr8; png compressed bgr8', '; png']
)
def test_an_image_that_was_made_of_a_mosaic_before_it_was_compressed_is_taken_as_it_is(described):
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    message = CompressedImage(format=described)
    message.data.frombytes(cv2.imencode('.png', image)[1].tobytes())
    assert np.array_equal(compressed_to_bgr(message), image)


def test_a_compressed_mosaic_of_an_unknown_pattern_is_refused_by_its_name():
    message = CompressedImage(format='bayer_rggb16; png compressed ')
    message.data.frombytes(cv2.imencode('.png', np.zeros((4, 4), np.uint16))[1].tobytes())
    with pytest.raises(FrameError, match='bayer_rggb16'):
        compressed_to_bgr(message)


def test_a_bgr8_image_is_a_view_of_the_message():
    message = message_of(np.zeros((4, 12), np.uint8), 'bgr8', 4, 4)
    picture = image_to_bgr(message)
    message.data[0] = 77
    assert picture[0, 0, 0] == 77


@given(size=sizes, seed=seeds)
def test_a_mask_survives_both_ways_of_sending_it(size, seed):
    mask, header = random_picture(size, seed)[..., 1], Header(frame_id='camera')
    raw, png = image_message(mask, 'mono8', header), png_message(mask, header)
    assert raw.header == header
    assert png.header == header
    assert np.array_equal(image_to_bgr(raw)[..., 0], mask)
    assert np.array_equal(compressed_to_bgr(png)[..., 0], mask)


def test_float_images_are_sent_with_their_bytes():
    values = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    message = image_message(values, '32FC1', Header())
    assert (message.height, message.width, message.step) == (2, 3, 12)
    assert np.array_equal(np.frombuffer(message.data, np.float32).reshape(2, 3), values)


def test_a_slice_of_an_array_is_sent_without_its_neighbours():
    whole = np.arange(24, dtype=np.uint8).reshape(4, 6)
    message = image_message(whole[:, 1:3], 'mono8', Header())
    assert np.array_equal(image_to_bgr(message)[..., 0], whole[:, 1:3])


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
@given(size=sizes, seed=seeds)
@settings(max_examples=30)
def test_compressed_images_come_in_at_their_size(extension, size, seed):
    picture = random_picture(size, seed)
    coded = cv2.imencode(extension, picture)[1]
    message = CompressedImage(format=extension[1:])
    message.data.frombytes(coded.tobytes())
    result = compressed_to_bgr(message)
    assert result.shape == picture.shape
    assert extension == '.jpg' or np.array_equal(result, picture)


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
@given(cut=st.floats(0, 0.999))
@settings(max_examples=40)
def test_a_compressed_image_that_is_cut_short_is_refused(extension, cut):
    coded = cv2.imencode(extension, random_picture((24, 32), 5))[1].tobytes()
    message = CompressedImage(format=extension[1:])
    message.data.frombytes(coded[: int(len(coded) * cut)])
    with pytest.raises(FrameError, match=r'cut off|damaged|empty|no JPEG or PNG'):
        compressed_to_bgr(message)


@given(data=st.binary(max_size=200), start=st.sampled_from([b'', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n']))
def test_rubbish_is_refused_with_a_clear_error(data, start):
    message = CompressedImage(format='jpeg')
    message.data.frombytes(start + data)
    with pytest.raises(FrameError):
        compressed_to_bgr(message)


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded():
    header = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + (60_000).to_bytes(4, 'big') * 2
    message = CompressedImage(format='png')
    message.data.frombytes(header + bytes(9) + bytes(4) + PNG_END + bytes(4))
    with pytest.raises(FrameError, match='60000x60000'):
        compressed_to_bgr(message)


@given(
    height=st.integers(0, 2**32 - 1),
    width=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**32 - 1),
    length=st.integers(0, 64),
    encoding=st.sampled_from([*SUPPORTED, 'rgb16', '']),
)
def test_sizes_that_do_not_fit_the_data_are_refused_at_once(height, width, step, length, encoding):
    message = Image(height=height, width=width, step=step, encoding=encoding)
    message.data.frombytes(bytes(length))
    try:
        image = image_to_bgr(message)
    except FrameError:
        return
    assert image.shape == (height, width, 3)


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'height': 0}, '4x0; expected sides of 1 to 8192 pixels'),
        ({'width': 5}, 'step is 12 bytes; a row of 5 bgr8 pixels takes 15'),
        ({'step': 13}, '48 bytes of data; a 4x4 bgr8 image with step 13 has 52'),
        ({'encoding': '32FC1', 'step': 12}, 'not supported; expected one of bgr8'),
        ({'encoding': 'x' * 1000}, "^encoding '(x{40})' is not supported"),
        ({'encoding': 'yuv422', 'width': 3}, 'even'),
        ({'encoding': 'nv12', 'height': 3}, 'even'),
    ],
)
def test_a_refusal_says_what_is_wrong(changes, reason):
    message = message_of(np.zeros((4, 12), np.uint8), 'bgr8', 4, 4)
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(FrameError, match=reason):
        image_to_bgr(message)


@pytest.fixture
def cv_bridge(tmp_path, monkeypatch):
    """Installs a package of that name, which no wheel has."""

    def install(source: str) -> None:
        (tmp_path / 'cv_bridge').mkdir()
        (tmp_path / 'cv_bridge' / '__init__.py').write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

    monkeypatch.delitem(sys.modules, 'cv_bridge', raising=False)
    conversions._cv_bridge.cache_clear()
    yield install
    sys.modules.pop('cv_bridge', None)
    conversions._cv_bridge.cache_clear()


def test_other_encodings_go_through_cv_bridge_where_it_is_installed(cv_bridge):
    cv_bridge(
        'import numpy as np\n'
        'class CvBridge:\n'
        '    def imgmsg_to_cv2(self, message, desired_encoding):\n'
        '        assert desired_encoding == "bgr8"\n'
        '        return np.full((message.height, message.width, 3), 7, np.uint8)\n'
    )
    assert image_to_bgr(message_of(np.zeros((2, 12), np.uint8), 'bgr16', 2, 2))[0, 0, 0] == 7


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({}, "^encoding 'bgr16' cannot be converted: no such conversion$"),
        ({'height': 0}, 'expected sides of 1 to 8192 pixels'),
        ({'height': 1}, "^24 bytes of data; a 2x1 'bgr16' image with step 12 has 12$"),
        ({'height': 3}, "^24 bytes of data; a 2x3 'bgr16' image with step 12 has 36$"),
    ],
)
def test_cv_bridge_is_given_only_data_that_fit_and_its_errors_are_told_with_the_encoding(
    cv_bridge, changes, reason
):
    cv_bridge(
        'class CvBridge:\n'
        '    def imgmsg_to_cv2(self, message, desired_encoding):\n'
        '        raise RuntimeError("no such conversion")\n'
    )
    message = message_of(np.zeros((2, 12), np.uint8), 'bgr16', 2, 2)
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(FrameError, match=reason):
        image_to_bgr(message)


@pytest.mark.parametrize(
    ('source', 'advice'),
    [
        (None, 'install cv_bridge for others'),
        ('import no_such_half', "broken: ModuleNotFoundError: No module named 'no_such_half'"),
        ('raise AttributeError("_ARRAY_API not found")', 'broken: AttributeError: _ARRAY_API not found'),
        ('class CvBridge:\n    def __init__(self): raise OSError("no libcv")', 'broken: OSError: no libcv'),
    ],
    ids=['absent', 'without a part', 'built for another NumPy', 'without a library'],
)
def test_a_cv_bridge_that_is_broken_is_not_called_absent(cv_bridge, source, advice):
    if source is None:
        sys.modules['cv_bridge'] = None  # also where ROS brings it
    else:
        cv_bridge(source)
    with pytest.raises(FrameError, match=f"^encoding 'bgr16' is not supported; .*{advice}$"):
        image_to_bgr(message_of(np.zeros((2, 12), np.uint8), 'bgr16', 2, 2))
