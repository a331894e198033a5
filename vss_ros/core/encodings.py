"""Camera images as they travel in ROS messages and bags, turned into BGR arrays.

The one place that knows what an encoding's name means. It needs no ROS: the node and the bag source both
hand it the fields of a message.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

import cv2
import numpy as np

from vss_ros.core.errors import FrameError
from vss_ros.core.frame import MAX_SIDE

PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
PNG_MOST_CHUNKS = 100_000  # one of 8192 pixels a side may have some 30 000
PNG_END = b'IEND'
PNG_ANIMATION = b'acTL'
PNG_GREY_8 = b'\x08\x00'  # bits per channel and colour type, which lie at byte 24
JPEG_MAGIC = b'\xff\xd8\xff'
JPEG_END = 0xD9
JPEG_START_OF_SCAN = 0xDA
# A marker that does not stand within the data of a scan, as a zero behind 0xff and restarts do.
JPEG_AFTER_SCAN = re.compile(rb'\xff([\x01-\xcf\xd8-\xfe])')
JPEG_MOST_SEGMENTS = 10_000  # before the first scan, fill bytes counted
JPEG_MOST_SCANS = 100  # of an image of 2048x2048 or less: an empty one takes as long to decode as a whole one
JPEG_LEAST_SCANS = 15  # that are taken of the largest image too; encoders make ten
JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the start-of-frame markers
JPEG_BARE = frozenset([0x01, *range(0xD0, 0xD8)])  # markers without a length


class _Layout(NamedTuple):
    """How the bytes of one row are laid out, and OpenCV's code to BGR (None: they are BGR)."""

    channels: int
    code: int | None
    depth: int = 8  # bits
    even: bool = False  # neighbours share chroma, so the width must be even, and of planes the height too
    least: int = 1  # pixels of a side; OpenCV makes smaller mosaics black
    planar: bool = False  # half as many rows of chroma follow the rows of brightness


# OpenCV names a Bayer pattern by its second row and column, ROS by its first.
_UYVY = _Layout(2, cv2.COLOR_YUV2BGR_UYVY, even=True)
_YUYV = _Layout(2, cv2.COLOR_YUV2BGR_YUY2, even=True)
_LAYOUTS = {
    'bgr8': _Layout(3, None),
    'rgb8': _Layout(3, cv2.COLOR_RGB2BGR),
    'bgra8': _Layout(4, cv2.COLOR_BGRA2BGR),
    'rgba8': _Layout(4, cv2.COLOR_RGBA2BGR),
    'mono8': _Layout(1, cv2.COLOR_GRAY2BGR),
    'bayer_rggb8': _Layout(1, cv2.COLOR_BayerBG2BGR, least=3),
    'bayer_bggr8': _Layout(1, cv2.COLOR_BayerRG2BGR, least=3),
    'bayer_gbrg8': _Layout(1, cv2.COLOR_BayerGR2BGR, least=3),
    'bayer_grbg8': _Layout(1, cv2.COLOR_BayerGB2BGR, least=3),
    'yuv422': _UYVY,
    'uyvy': _UYVY,
    'yuv422_yuy2': _YUYV,
    'yuyv': _YUYV,
    'nv12': _Layout(1, cv2.COLOR_YUV2BGR_NV12, even=True, planar=True),
    'nv21': _Layout(1, cv2.COLOR_YUV2BGR_NV21, even=True, planar=True),
    'mono16': _Layout(1, cv2.COLOR_GRAY2BGR, depth=16),
    '16UC1': _Layout(1, cv2.COLOR_GRAY2BGR, depth=16),
    '8UC1': _Layout(1, cv2.COLOR_GRAY2BGR),
    '8UC3': _Layout(3, None),
}
SUPPORTED = tuple(_LAYOUTS)
LABEL_ENCODINGS = ('mono8', '8UC1')


def to_bgr(
    encoding: str, data: bytes | np.ndarray, height: int, width: int, step: int, is_bigendian: bool = False
) -> np.ndarray:
    """Turns the fields of a sensor_msgs/Image into a BGR image, uint8 (height, width, 3).

    `bgr8` and `8UC3` come back as a view of `data`, everything else as a new array. 16 bit values are
    divided by 257, so that 65535 becomes 255.

    Args:
        data: anything with a byte buffer.
        step: bytes per row, padding included.

    Raises:
        FrameError: unknown encoding, a size it cannot have, step too small, or too few or too many bytes.
    """
    if encoding not in _LAYOUTS:
        raise FrameError(f'encoding {encoding[:40]!r} is not supported; use one of {", ".join(SUPPORTED)}')
    layout = _LAYOUTS[encoding]
    pixels = _view(encoding, data, height, width, step, is_bigendian)
    if layout.code is None:
        return pixels
    if layout.depth == 16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    return cv2.cvtColor(pixels, layout.code)


def to_labels(encoding: str, data: bytes | np.ndarray, height: int, width: int, step: int) -> np.ndarray:
    """Views the fields of a mask message as class ids, uint8 (height, width).

    Raises:
        FrameError: neither mono8 nor 8UC1, or damaged as for `to_bgr`.
    """
    if encoding not in LABEL_ENCODINGS:
        raise FrameError(f'a mask has encoding {encoding!r}; expected {" or ".join(LABEL_ENCODINGS)}')
    return _view(encoding, data, height, width, step, False)


def decode_compressed(data: bytes | np.ndarray, described: str = '') -> np.ndarray:
    """Decodes a JPEG or PNG, such as the data of a CompressedImage, to BGR, uint8 (H, W, 3).

    The size in the header is checked before anything is allocated. The orientation tag of a JPEG is not
    applied: the image keeps the geometry that the camera's calibration speaks of.

    Args:
        described: the `format` of a CompressedImage, which tells of Bayer mosaics.

    Raises:
        FrameError: neither JPEG nor PNG, damaged, cut off, or larger than 8192 pixels a side.
    """
    pattern = _bayer_pattern(described)
    if pattern is None:
        return decode_file(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    mosaic = decode_file(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    height, width = mosaic.shape
    return to_bgr(pattern, mosaic, height, width, step=width)


def decode_labels(data: bytes | np.ndarray) -> np.ndarray:
    """Decodes a PNG of class ids, uint8 (H, W).

    Raises:
        FrameError: as for `decode_compressed`, or it is not an 8 bit grey PNG (colours are not ids).
    """
    head = bytes(data[:26])
    if not head.startswith(PNG_MAGIC) or head[24:] != PNG_GREY_8:
        raise FrameError('a compressed image does not hold class ids; expected an 8 bit grey PNG')
    return decode_file(data, cv2.IMREAD_UNCHANGED)


def decode_file(data: bytes | np.ndarray, flags: int) -> np.ndarray:
    """`decode_compressed` with OpenCV's reading flags of the caller's choice."""
    buffer = np.frombuffer(data, np.uint8)
    check_size(*compressed_size(buffer))
    try:
        image = cv2.imdecode(buffer, flags)
    except cv2.error as error:
        raise FrameError(f'a compressed image cannot be decoded: {error.err}') from error
    if image is None:
        raise FrameError('a compressed image is damaged and cannot be decoded')
    return image


def compressed_size(data: bytes | np.ndarray) -> tuple[int, int]:
    """Height and width from the header of a complete JPEG or PNG, which is not decoded.

    Raises:
        FrameError: neither JPEG nor PNG, or cut off.
    """
    content = bytes(data)
    try:
        if content.startswith(PNG_MAGIC):
            return _png_size(content)
        if content.startswith(JPEG_MAGIC):
            return _jpeg_size(content)
    except (struct.error, IndexError) as error:
        raise FrameError('a compressed image is cut off in its header') from error
    raise FrameError('a compressed image is no JPEG or PNG' if content else 'a compressed image is empty')


def _bayer_pattern(described: str) -> str | None:
    """The encoding of what was compressed where that is a Bayer mosaic, or None.

    image_transport describes images as "bayer_rggb8; jpeg compressed bgr8": what the camera gave, and what
    was made of it before it was compressed. Where the latter is missing, nothing was.
    """
    given, _, rest = described.partition(';')
    compressed = rest.partition('compressed')[2].strip()
    is_mosaic = given.startswith('bayer_') and (not compressed or compressed.startswith('bayer_'))
    return given.strip() if is_mosaic else None


def _view(
    encoding: str, data: bytes | np.ndarray, height: int, width: int, step: int, is_bigendian: bool
) -> np.ndarray:
    """The pixels as they lie in `data`: (rows, width) or (rows, width, channels); 8 bit ones uncopied."""
    layout = _LAYOUTS[encoding]
    check_size(height, width)
    if layout.even and (width % 2 or (height % 2 and layout.planar)):
        expected = 'even sides' if layout.planar else 'an even width'
        raise FrameError(f'a {encoding} image is {width}x{height}; expected {expected}')
    if min(height, width) < layout.least:
        raise FrameError(
            f'a {encoding} image is {width}x{height}; expected sides of {layout.least} pixels or more'
        )
    item = layout.depth // 8
    if step < width * layout.channels * item:
        raise FrameError(
            f'step is {step} bytes; a row of {width} {encoding} pixels takes {width * layout.channels * item}'
        )
    rows = height + height // 2 if layout.planar else height
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size != rows * step:
        raise FrameError(
            f'{buffer.size} bytes of data; a {width}x{height} {encoding} image '
            f'with step {step} has {rows * step}'
        )
    dtype = np.dtype(np.uint8 if item == 1 else '>u2' if is_bigendian else '<u2')
    pixels = np.ndarray(
        (rows, width, layout.channels), dtype, buffer, strides=(step, item * layout.channels, item)
    )
    if layout.channels == 1:
        pixels = pixels[..., 0]
    if item == 1:
        return pixels
    # OpenCV misreads 16 bit rows that start at odd addresses, which an odd step makes of them.
    return np.ascontiguousarray(pixels, dtype.newbyteorder('='))


def check_size(height: int, width: int) -> None:
    """Raises FrameError unless both sides are 1 to MAX_SIDE pixels."""
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise FrameError(f'an image is {width}x{height}; expected sides of 1 to {MAX_SIDE} pixels')


def _png_size(content: bytes) -> tuple[int, int]:
    """Walks the chunks: OpenCV makes room for as many bytes as a chunk says it has, up to gigabytes."""
    width, height = struct.unpack_from('>II', content, 16)
    at = len(PNG_MAGIC)
    for _ in range(PNG_MOST_CHUNKS):
        if at + 12 > len(content):
            break
        length, kind = struct.unpack_from('>I4s', content, at)
        if kind == PNG_ANIMATION:  # OpenCV makes a damaged one black, without a word
            raise FrameError('a PNG image is an animation; expected a single image')
        at += 12 + length
        if kind == PNG_END and at <= len(content):
            return height, width
    else:
        raise FrameError(f'a PNG image has more than {PNG_MOST_CHUNKS} chunks')
    raise FrameError('a PNG image is cut off: its end is missing')


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Walks the segments; a preview inside one of them must be taken for neither the size nor the end."""
    size = None
    at = 2
    for _ in range(JPEG_MOST_SEGMENTS):
        if content[at] != 0xFF:
            raise FrameError('a JPEG image is damaged: a segment does not start where the last one ends')
        marker = content[at + 1]
        at += 1 if marker == 0xFF else 2
        if marker == 0xFF or marker in JPEG_BARE:
            continue
        if marker in JPEG_SIZES:
            size = struct.unpack_from('>HH', content, at + 3)
        at += struct.unpack_from('>H', content, at)[0]
        if marker == JPEG_START_OF_SCAN:
            break
    else:
        raise FrameError(f'a JPEG image has more than {JPEG_MOST_SEGMENTS} segments before its first scan')
    scans = 1
    while (found := JPEG_AFTER_SCAN.search(content, at)) and found[1][0] != JPEG_END:  # behind it is no image
        scans += found[1][0] == JPEG_START_OF_SCAN
        at = found.end() + struct.unpack_from('>H', content, found.end())[0]
    if size is None or found is None:
        raise FrameError('a JPEG image is cut off: its end is missing')
    height, width = size
    most = min(JPEG_MOST_SCANS, JPEG_MOST_SCANS * 2048**2 // max(height * width, 1))
    most = max(most, JPEG_LEAST_SCANS)
    if scans > most:
        raise FrameError(f'a JPEG image of {width}x{height} has {scans} scans; expected at most {most}')
    return size
