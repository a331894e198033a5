"""Between ROS messages and arrays.

What an encoding's name means is in `core/encodings.py`. `cv_bridge` is asked only for encodings that are
not there, where it is installed: in Python it misses NV12, breaks with NumPy 2 and copies.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from vss_ros.core.encodings import SUPPORTED, check_size, decode_compressed, to_bgr
from vss_ros.core.errors import FrameError, error_text, is_missing

PNG_LEVEL = 1  # class ids compress well at any level, and level 1 is five times faster than the default


def image_to_bgr(message: Image) -> np.ndarray:
    """The picture of an Image message, uint8 (H, W, 3) in BGR order.

    `bgr8` is a view of the message's own memory.

    Raises:
        FrameError: zero or absurd size, data that does not fit the size, an encoding nobody here knows.
    """
    if message.encoding not in SUPPORTED:
        return _through_cv_bridge(message)
    return to_bgr(
        message.encoding,
        message.data,
        message.height,
        message.width,
        message.step,
        bool(message.is_bigendian),
    )


def compressed_to_bgr(message: CompressedImage) -> np.ndarray:
    """The picture of a CompressedImage message (JPEG or PNG), uint8 (H, W, 3) in BGR order.

    Raises:
        FrameError: neither JPEG nor PNG, cut short, damaged, or of an absurd size.
    """
    return decode_compressed(message.data, message.format)


def image_message(array: np.ndarray, encoding: str, header: Header) -> Image:
    """An Image message of a uint8 or float32 array, (H, W) or (H, W, C), with this very header."""
    array = np.ascontiguousarray(array)
    message = Image(header=header, encoding=encoding)
    message.height, message.width = array.shape[:2]
    message.step = array.nbytes // array.shape[0]
    # Assigning an array to `data` walks through it byte by byte: 200 ms at 1920x1080 instead of 0.5.
    message.data.frombytes(array.data.cast('B'))
    return message


def png_message(mask: np.ndarray, header: Header) -> CompressedImage:
    """A lossless CompressedImage of a uint8 array (H, W)."""
    _, coded = cv2.imencode('.png', mask, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
    message = CompressedImage(header=header, format='mono8; png compressed mono8')
    message.data.frombytes(coded.data.cast('B'))
    return message


@lru_cache(maxsize=1)
def _cv_bridge() -> tuple[Any, str]:
    """The bridge, or None and what to say about that."""
    try:
        from cv_bridge import CvBridge

        return CvBridge(), ''
    except Exception as error:  # its compiled half fails in more ways than ImportError
        if is_missing('cv_bridge', error):
            return None, 'install cv_bridge for others'
        return None, f'cv_bridge is installed but broken: {error_text(error)}'


def _through_cv_bridge(message: Image) -> np.ndarray:
    encoding, (bridge, advice) = message.encoding[:40], _cv_bridge()
    check_size(message.height, message.width)
    if len(message.data) != message.height * message.step:  # its compiled half would read past the end
        raise FrameError(
            f'{len(message.data)} bytes of data; a {message.width}x{message.height} {encoding!r} image '
            f'with step {message.step} has {message.height * message.step}'
        )
    if bridge is None:
        raise FrameError(
            f'encoding {encoding!r} is not supported; expected one of {", ".join(SUPPORTED)}; {advice}'
        )
    try:
        return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, desired_encoding='bgr8'))
    except Exception as error:
        raise FrameError(f'encoding {encoding!r} cannot be converted: {error}') from error
