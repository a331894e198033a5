import array
import resource
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vss_ros.core import encodings
from vss_ros.core.encodings import compressed_size, decode_compressed, to_bgr, to_labels
from vss_ros.core.errors import FrameError

COLOUR = (40, 120, 200)  # B, G, R
BAYER = {'bayer_rggb8': 'RGGB', 'bayer_bggr8': 'BGGR', 'bayer_gbrg8': 'GBRG', 'bayer_grbg8': 'GRBG'}


def picture(height=48, width=64):
    """A soft random image, so that it survives JPEG and shared chroma."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 5)


def yuv(blue, green, red):
    """BT.601, limited range, by the book."""
    y = 16 + 65.481 * red / 255 + 128.553 * green / 255 + 24.966 * blue / 255
    u = 128 - 37.797 * red / 255 - 74.203 * green / 255 + 112.0 * blue / 255
    v = 128 + 112.0 * red / 255 - 93.786 * green / 255 - 18.214 * blue / 255
    return round(y), round(u), round(v)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(
    ('encoding', 'order'), [('bgr8', [0, 1, 2]), ('8UC3', [0, 1, 2]), ('rgb8', [2, 1, 0])]
)
def test_three_channel_images_come_back_exactly(encoding, order, padding):
    image = picture()
    rows = np.pad(image[..., order].reshape(48, -1), ((0, 0), (0, padding)))
    assert np.array_equal(to_bgr(encoding, rows.tobytes(), 48, 64, rows.shape[1]), image)


@pytest.mark.parametrize(('encoding', 'order'), [('bgra8', [0, 1, 2]), ('rgba8', [2, 1, 0])])
def test_alpha_is_dropped(encoding, order):
    image = picture()
    data = np.dstack([image[..., order], np.full((48, 64), 9, np.uint8)])
    assert np.array_equal(to_bgr(encoding, data.tobytes(), 48, 64, 256), image)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_images_become_three_equal_channels(encoding):
    grey = picture()[..., 0]
    image = to_bgr(encoding, np.ascontiguousarray(grey), 48, 64, 64)
    assert all(np.array_equal(image[..., channel], grey) for channel in range(3))


@pytest.mark.parametrize('encoding', ['mono16', '16UC1'])
@pytest.mark.parametrize('order', ['<', '>'])
def test_sixteen_bits_become_eight_in_either_byte_order(encoding, order):
    values = np.array([[0x1234, 257], [200 * 257, 65535]], f'{order}u2')
    image = to_bgr(encoding, values.tobytes(), 2, 2, 4, is_bigendian=order == '>')
    assert image[..., 1].tolist() == [[18, 1], [200, 255]]  # 0x1234 / 257 = 18.1, 0x3412 / 257 = 51.9


@pytest.mark.parametrize('encoding', sorted(BAYER))
def test_a_bayer_pattern_is_read_from_its_first_row(encoding):
    value = dict(zip('BGR', COLOUR, strict=True))
    tile = np.array([value[letter] for letter in BAYER[encoding]], np.uint8).reshape(2, 2)
    image = to_bgr(encoding, np.tile(tile, (8, 8)).tobytes(), 16, 16, 16)
    assert np.abs(image.astype(int) - COLOUR).max() <= 1


@pytest.mark.parametrize('encoding', sorted(BAYER))
@pytest.mark.parametrize(('height', 'width'), [(15, 15), (15, 16), (16, 15), (3, 3)])
def test_a_bayer_mosaic_of_odd_sides_is_the_even_one_but_for_its_outermost_pixels(encoding, height, width):
    mosaic = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    whole = to_bgr(encoding, mosaic, 16, 16, 16)
    part = to_bgr(encoding, mosaic[:height].copy(), height, width, 16)
    assert part.shape == (height, width, 3)
    assert np.array_equal(part[:-1, :-1], whole[: height - 1, : width - 1])


@pytest.mark.parametrize(
    ('encoding', 'order'), [('yuv422', 'uyvy'), ('uyvy', 'uyvy'), ('yuv422_yuy2', 'yuyv'), ('yuyv', 'yuyv')]
)
def test_packed_yuv_keeps_the_colour(encoding, order):
    value = dict(zip('yuv', yuv(*COLOUR), strict=True))
    row = bytes(value[letter] for letter in order) * 8
    assert np.abs(to_bgr(encoding, row * 5, 5, 16, 32).astype(int) - COLOUR).max() <= 3


@pytest.mark.parametrize(('encoding', 'first'), [('nv12', 1), ('nv21', 2)])
def test_planar_yuv_keeps_the_colour_with_padded_rows(encoding, first):
    value = yuv(*COLOUR)
    planes = np.zeros((12, 20), np.uint8)
    planes[:8, :16] = value[0]
    planes[8:, 0:16:2], planes[8:, 1:16:2] = value[first], value[3 - first]
    assert np.abs(to_bgr(encoding, planes.tobytes(), 8, 16, 20).astype(int) - COLOUR).max() <= 3


@pytest.mark.parametrize('kind', [bytes, bytearray, lambda data: array.array('B', data)])
def test_a_bgr_image_is_a_view_of_the_message(kind):
    data = kind(picture().tobytes())
    assert np.shares_memory(to_bgr('bgr8', data, 48, 64, 192), np.frombuffer(data, np.uint8))


@pytest.mark.parametrize('encoding', encodings.SUPPORTED)
def test_every_supported_encoding_gives_a_bgr_image(encoding):
    rows = 12 if encoding in ('nv12', 'nv21') else 8
    image = to_bgr(encoding, bytes(rows * 64), 8, 16, 64)
    assert image.shape == (8, 16, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (('rgb16', b'', 2, 2, 12), "encoding 'rgb16' is not supported; use one of bgr8, rgb8"),
        (('bgr8', b'', 0, 2, 6), '2x0; expected sides of 1 to 8192'),
        (('bgr8', b'', 2, 0, 6), '0x2; expected sides of 1 to 8192'),
        (('bgr8', bytes(3 * 8193), 8193, 1, 3), '1x8193; expected sides of 1 to 8192 pixels'),
        (('bgr8', bytes(3 * 8193), 1, 8193, 3 * 8193), '8193x1; expected sides of 1 to 8192'),
        (('bgr8', bytes(10), 2, 2, 5), 'step is 5 bytes; a row of 2 bgr8 pixels takes 6'),
        (('mono16', bytes(6), 2, 2, 3), 'step is 3'),
        (('bgr8', bytes(11), 2, 2, 6), '11 bytes of data; a 2x2 bgr8 image with step 6 has 12'),
        (('bgr8', bytes(13), 2, 2, 6), '13 bytes'),
        (('bgr8', b'', 2, 2, 6), '0 bytes'),
        (('nv12', bytes(4), 2, 2, 2), '4 bytes of data; a 2x2 nv12 image with step 2 has 6'),
        (('nv12', bytes(9), 3, 2, 2), 'nv12 image is 2x3; expected even sides'),
        (('yuyv', bytes(12), 2, 3, 6), 'yuyv image is 3x2; expected an even width'),
        (('bayer_rggb8', bytes(6), 3, 2, 2), '2x3; expected sides of 3 pixels or more'),
        *(((name, bytes(3), 1, 3, 3), '3x1; expected sides of 3') for name in BAYER),
    ],
)
def test_a_damaged_image_is_refused_with_the_reason(fields, message):
    with pytest.raises(FrameError, match=message):
        to_bgr(*fields)


def test_a_side_may_have_8192_pixels():
    for height, width in ((8192, 1), (1, 8192)):
        assert to_bgr('bgr8', bytes(3 * 8192), height, width, 3 * width).shape == (height, width, 3)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_labels_are_the_bytes_of_a_grey_image_without_its_padding(encoding):
    assert to_labels(encoding, bytes([1, 2, 9, 3, 255, 9]), 2, 2, 3).tolist() == [[1, 2], [3, 255]]


def test_labels_of_another_encoding_are_refused():
    with pytest.raises(FrameError, match="encoding 'bgr8'; expected mono8"):
        to_labels('bgr8', bytes(12), 2, 2, 6)


def test_a_png_is_decoded_exactly_and_a_jpeg_closely():
    image = picture()
    assert np.array_equal(decode_compressed(cv2.imencode('.png', image)[1].tobytes()), image)
    found = decode_compressed(cv2.imencode('.jpg', image)[1]).astype(int)
    assert np.abs(found - image).mean() < 3


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
@pytest.mark.parametrize('shape', [(48, 64), (48, 64, 3)])
def test_a_grey_or_colour_file_of_any_kind_gives_its_size_and_a_bgr_image(suffix, shape):
    data = cv2.imencode(suffix, np.zeros(shape, np.uint8))[1].tobytes()
    assert compressed_size(data) == (48, 64)
    assert decode_compressed(data).shape == (48, 64, 3)


def test_a_jpeg_with_a_preview_inside_has_the_size_of_the_whole():
    preview = cv2.imencode('.jpg', np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    data = cv2.imencode('.jpg', picture())[1].tobytes()
    segment = b'\xff\xe1' + (len(preview) + 2).to_bytes(2, 'big') + preview
    nested = data[:2] + segment + data[2:]
    assert compressed_size(nested) == (48, 64)
    assert decode_compressed(nested).shape == (48, 64, 3)
    with pytest.raises(FrameError, match='cut off'):
        decode_compressed(nested[: len(segment) + 700])


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off_is_never_decoded(suffix, share):
    data = cv2.imencode(suffix, picture())[1].tobytes()
    with pytest.raises(FrameError):
        decode_compressed(data[: min(int(share * len(data)), len(data) - 2)])


@pytest.mark.parametrize(('suffix', 'mark', 'behind'), [('.png', b'IDAT', 8), ('.jpg', b'\xff\xc0', 11)])
def test_a_file_that_is_whole_and_damaged_within_is_refused(suffix, mark, behind):
    data = bytearray(cv2.imencode(suffix, picture())[1].tobytes())
    data[data.index(mark) + behind] ^= 0xFF
    assert compressed_size(data) == (48, 64)
    with pytest.raises(FrameError, match='is damaged and cannot be decoded'):
        decode_compressed(data)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200), magic=st.sampled_from([b'', encodings.PNG_MAGIC, encodings.JPEG_MAGIC]))
def test_no_bytes_at_all_break_the_decoder(data, magic):
    with pytest.raises(FrameError):
        decode_compressed(magic + data)


def test_an_image_of_nothing_but_empty_parts_is_refused_soon():
    jpeg, png = (cv2.imencode(kind, picture())[1].tobytes() for kind in ('.jpg', '.png'))
    comments = b'\xff\xfe\x00\x02' * 11_000
    with pytest.raises(FrameError, match='more than 10000 segments'):
        decode_compressed(jpeg[:2] + comments + jpeg[2:])
    texts = (bytes(4) + b'tEXt' + bytes(4)) * 101_000
    with pytest.raises(FrameError, match='more than 100000 chunks'):
        decode_compressed(png[:33] + texts + png[33:])


def test_an_encoding_of_megabytes_is_named_in_one_line():
    png = cv2.imencode('.png', picture())[1].tobytes()
    with pytest.raises(FrameError, match='bayer_xxx') as error:
        decode_compressed(png, 'bayer_' + 'x' * 3_000_000)
    assert len(str(error.value)) < 1000


def test_a_size_in_a_header_is_refused_before_anything_is_allocated():
    png = bytearray(cv2.imencode('.png', picture())[1].tobytes())
    png[16:24] = (60_000).to_bytes(4, 'big') * 2
    with pytest.raises(FrameError, match='60000x60000; expected sides of 1 to 8192'):
        decode_compressed(bytes(png))
    jpeg = bytearray(cv2.imencode('.jpg', picture())[1].tobytes())
    at = jpeg.index(b'\xff\xc0')
    jpeg[at + 5 : at + 9] = b'\xff' * 4
    with pytest.raises(FrameError, match='65535x65535'):
        decode_compressed(bytes(jpeg))


def test_a_progressive_jpeg_is_decoded_and_one_of_a_thousand_empty_scans_is_refused():
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 3)
    coded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert coded.count(b'\xff\xda') > 3
    assert np.abs(encodings.decode_compressed(coded).astype(int) - image).mean() < 5
    scan = b'\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00\x7f'  # nothing but a run to the end of the band
    with pytest.raises(FrameError, match='scans; expected at most 100'):
        encodings.decode_compressed(coded[:-2] + 1000 * scan + coded[-2:])


def jpeg_header(height, width, scans):
    """A JPEG without content, which nobody may decode."""
    size = b'\xff\xc2\x00\x0b\x08' + struct.pack('>HH', height, width) + b'\x01\x01\x11\x00'
    return b'\xff\xd8' + size + scans * b'\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00\x7f' + b'\xff\xd9'


@pytest.mark.parametrize(
    ('height', 'width', 'most'), [(48, 64, 100), (2048, 2048, 100), (4096, 2048, 50), (8192, 8192, 15)]
)
def test_a_larger_jpeg_may_have_fewer_scans_as_each_takes_the_longer(height, width, most):
    assert compressed_size(jpeg_header(height, width, most)) == (height, width)
    with pytest.raises(FrameError, match=f'{width}x{height} has {most + 1} scans; expected at most {most}$'):
        compressed_size(jpeg_header(height, width, most + 1))


def test_an_animated_png_is_refused():
    """OpenCV makes one that is damaged black."""
    png = cv2.imencode('.png', picture())[1].tobytes()
    control = b'acTL' + struct.pack('>II', 1, 0)
    chunk = struct.pack('>I', 8) + control + struct.pack('>I', zlib.crc32(control))
    at = png.index(b'IDAT') - 4
    with pytest.raises(FrameError, match='is an animation; expected a single image'):
        decode_compressed(png[:at] + chunk + png[at:])


def test_the_orientation_that_a_jpeg_asks_for_is_not_applied():
    """The camera's calibration speaks of the image as it is."""
    jpeg = cv2.imencode('.jpg', picture())[1].tobytes()
    a_quarter_turn = b'Exif\0\0II*\0' + struct.pack('<IHHHIII', 8, 1, 0x0112, 3, 1, 6, 0)
    turned = jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(a_quarter_turn) + 2) + a_quarter_turn + jpeg[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (64, 48, 3)
    for described in ('', 'bayer_rggb8; jpeg compressed bayer_rggb8'):
        assert np.array_equal(decode_compressed(turned, described), decode_compressed(jpeg, described))


def test_a_jpeg_with_a_film_behind_its_end_is_decoded():
    """As telephones write photographs that move; a film holds any bytes, those of a thousand scans too."""
    jpeg = cv2.imencode('.jpg', picture())[1].tobytes()
    film = b'ftypmp42' + 1000 * b'\xff\xda\x00\x08'
    assert np.array_equal(decode_compressed(jpeg + film), decode_compressed(jpeg))


@pytest.mark.parametrize('chunk', [b'IDAT', b'IEND'])
def test_a_chunk_of_a_png_that_says_it_has_gigabytes_is_refused_before_room_is_made_for_it(chunk):
    png = bytearray(cv2.imencode('.png', picture())[1].tobytes())
    at = png.index(chunk) - 4
    png[at : at + 4] = (0x7F000000).to_bytes(4, 'big')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FrameError, match='its end is missing'):
        decode_compressed(bytes(png))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_a_jpeg_with_bytes_that_only_fill_is_decoded():
    jpeg = cv2.imencode('.jpg', picture())[1].tobytes()
    for number in (1, 2):
        filled = jpeg[:2] + number * b'\xff' + jpeg[2:]
        assert np.array_equal(decode_compressed(filled), decode_compressed(jpeg))


def test_a_png_with_bytes_after_its_end_is_decoded():
    png = cv2.imencode('.png', picture())[1].tobytes()
    assert np.array_equal(decode_compressed(png + b'trailer'), picture())
