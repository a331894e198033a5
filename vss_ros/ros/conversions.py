"""Between ROS messages and arrays.

Our own, because `cv_bridge` in Python misses NV12, breaks with NumPy 2 and copies. Images come in without
a copy where their layout allows it, and every length is checked before anything is allocated. `cv_bridge`
is asked only for encodings that are not in the table here, where it is installed.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from vss_ros.core.errors import FrameError

MAX_PIXELS = 1 << 26  # 67 million; a larger size in a header is damage, not a camera
PNG_LEVEL = 1  # class ids compress well at any level, and level 1 is five times faster than the default

# Encoding -> (bytes per pixel, OpenCV's conversion to BGR). OpenCV names a Bayer pattern after the second
# row's second and third pixel, ROS after the first row: RGGB here is BG there.
_PACKED: dict[str, tuple[int, int | None]] = {
    'bgr8': (3, None),
    '8UC3': (3, None),
    'rgb8': (3, cv2.COLOR_RGB2BGR),
    'bgra8': (4, cv2.COLOR_BGRA2BGR),
    'rgba8': (4, cv2.COLOR_RGBA2BGR),
    'mono8': (1, cv2.COLOR_GRAY2BGR),
    '8UC1': (1, cv2.COLOR_GRAY2BGR),
    'bayer_rggb8': (1, cv2.COLOR_BayerBG2BGR),
    'bayer_bggr8': (1, cv2.COLOR_BayerRG2BGR),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGR2BGR),
    'bayer_grbg8': (1, cv2.COLOR_BayerGB2BGR),
    'yuv422': (2, cv2.COLOR_YUV2BGR_UYVY),
    'uyvy': (2, cv2.COLOR_YUV2BGR_UYVY),
    'yuv422_yuy2': (2, cv2.COLOR_YUV2BGR_YUY2),
    'yuyv': (2, cv2.COLOR_YUV2BGR_YUY2),
}
_PLANAR = {'nv12': cv2.COLOR_YUV2BGR_NV12, 'nv21': cv2.COLOR_YUV2BGR_NV21}
_MONO16 = ('mono16', '16UC1')
ENCODINGS = (*_PACKED, *_PLANAR, *_MONO16)


def image_to_bgr(message: Image) -> np.ndarray:
    """The picture of an Image message, uint8 (H, W, 3) in BGR order.

    `bgr8` without row padding is a view of the message's own memory.

    Raises:
        FrameError: zero or absurd size, data that does not fit the size, an encoding nobody here knows.
    """
    encoding, height, width = message.encoding, message.height, message.width
    _check_size(height, width)
    try:
        if encoding in _PACKED:
            return _packed(message, *_PACKED[encoding])
        if encoding in _PLANAR:
            _check_even(encoding, height, width)
            rows = _rows(message, height * 3 // 2, width)
            return cv2.cvtColor(rows, _PLANAR[encoding])
        if encoding in _MONO16:
            return _mono16(message)
    except cv2.error as error:
        raise FrameError(f'{width}x{height} {encoding} cannot be converted: {error.err}') from error
    _rows(message, height, 1)
    return _through_cv_bridge(message)


def compressed_to_bgr(message: CompressedImage) -> np.ndarray:
    """The picture of a CompressedImage message (JPEG or PNG), uint8 (H, W, 3) in BGR order.

    Raises:
        FrameError: neither JPEG nor PNG, cut short, damaged, or of an absurd size.
    """
    data = memoryview(message.data).cast('B')
    kind, height, width = _coded_size(data, message.format)
    _check_size(height, width)
    # OpenCV fills the missing part of a cut JPEG with grey and says nothing.
    if kind == 'jpeg' and b'\xff\xd9' not in bytes(data[-4096:]):
        raise FrameError(f'{width}x{height} JPEG of {len(data)} bytes is cut short: it has no end marker')
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise FrameError(f'{width}x{height} {kind} cannot be decoded: {error.err}') from error
    if image is None or image.shape[:2] != (height, width):
        raise FrameError(f'{width}x{height} {kind} of {len(data)} bytes is damaged')
    return np.asarray(image, np.uint8)


def image_message(array: np.ndarray, encoding: str, header: Header) -> Image:
    """An Image message of a uint8 or float32 array, (H, W) or (H, W, C), with this very header."""
    array = np.ascontiguousarray(array)
    message = Image(header=header, encoding=encoding)
    message.height, message.width = array.shape[:2]
    message.step = array.nbytes // array.shape[0]
    message.is_bigendian = 0
    # Assigning an array to `data` walks through it byte by byte: 200 ms at 1920x1080 instead of 0.5.
    message.data.frombytes(array.data.cast('B'))
    return message


def png_message(mask: np.ndarray, header: Header) -> CompressedImage:
    """A lossless CompressedImage of a uint8 array (H, W)."""
    _, coded = cv2.imencode('.png', mask, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
    message = CompressedImage(header=header, format='mono8; png compressed mono8')
    message.data.frombytes(coded.data.cast('B'))
    return message


def _packed(message: Image, channels: int, code: int | None) -> np.ndarray:
    height, width = message.height, message.width
    if channels == 2:
        _check_even(message.encoding, 2, width)
    rows = np.ascontiguousarray(_rows(message, height, width * channels))
    pixels = rows if channels == 1 else rows.reshape(height, width, channels)
    return pixels if code is None else cv2.cvtColor(pixels, code)


def _mono16(message: Image) -> np.ndarray:
    rows = np.ascontiguousarray(_rows(message, message.height, message.width * 2))
    values = rows.view('>u2' if message.is_bigendian else '<u2').astype(np.uint16, copy=False)
    return cv2.cvtColor(cv2.convertScaleAbs(values, alpha=255 / 65535), cv2.COLOR_GRAY2BGR)


def _rows(message: Image, rows: int, row_bytes: int) -> np.ndarray:
    """The rows of an image without their padding, uint8 (rows, row_bytes), as a view."""
    what = f'{message.width}x{message.height} {message.encoding[:40]!r}'
    if message.step < row_bytes:
        raise FrameError(f'{what} has rows of {message.step} bytes (step); expected at least {row_bytes}')
    if len(message.data) != message.step * rows:
        raise FrameError(
            f'{what} has {len(message.data)} bytes of data; expected {message.step * rows} '
            f'({rows} rows of {message.step})'
        )
    return np.frombuffer(message.data, np.uint8).reshape(rows, message.step)[:, :row_bytes]


def _check_size(height: int, width: int) -> None:
    if height == 0 or width == 0:
        raise FrameError(f'image is {width}x{height}: it has no pixels')
    if height * width > MAX_PIXELS:
        raise FrameError(f'image is {width}x{height}; expected at most {MAX_PIXELS} pixels')


def _check_even(encoding: str, height: int, width: int) -> None:
    if height % 2 or width % 2:
        raise FrameError(
            f'{encoding} image is {width}x{height}; it shares colour between pixels, use even sides'
        )


def _coded_size(data: memoryview, name: str) -> tuple[str, int, int]:
    """Kind, height and width that the first bytes of a JPEG or PNG promise."""
    if bytes(data[:8]) == b'\x89PNG\r\n\x1a\n' and len(data) >= 24:
        width, height = struct.unpack('>II', data[16:24])
        return 'png', height, width
    if bytes(data[:2]) == b'\xff\xd8':
        return 'jpeg', *_jpeg_size(data)
    raise FrameError(f'compressed image ({name[:40]!r}, {len(data)} bytes) is neither JPEG nor PNG')


def _jpeg_size(data: memoryview) -> tuple[int, int]:
    """Height and width from the start-of-frame segment."""
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:  # fill bytes, markers without length
            position += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack('>HH', data[position + 5 : position + 9])
            return height, width
        position += 2 + int.from_bytes(data[position + 2 : position + 4], 'big')
    raise FrameError(f'JPEG of {len(data)} bytes is cut short: it does not say its size')


@lru_cache(maxsize=1)
def _cv_bridge() -> Any:
    try:
        from cv_bridge import CvBridge
    except Exception:  # its compiled half fails in more ways than ImportError
        return None
    return CvBridge()


def _through_cv_bridge(message: Image) -> np.ndarray:
    encoding, bridge = message.encoding[:40], _cv_bridge()
    if bridge is None:
        raise FrameError(
            f'encoding {encoding!r} is not supported; expected one of {", ".join(ENCODINGS)}, '
            'or install cv_bridge for others'
        )
    try:
        return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, desired_encoding='bgr8'))
    except Exception as error:
        raise FrameError(f'encoding {encoding!r} cannot be converted: {error}') from error
