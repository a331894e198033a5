"""Motion vectors of an in-process MPEG-4 encoder: block matching by a codec, 1.7 ms at 480x360.

One packet in, one frame out: no B frames, one thread, no container. The encoder chooses its vectors by
matching error alone (Lagrange factor 0) with four 8x8 vectors per block, which measures 0.7 dB better than
its default. A picture without usable vectors (a scene cut) gives None, and the segmenter makes it a key
frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import cv2
import numpy as np

from vss_ros.core.errors import MissingLibraryError
from vss_ros.core.frame import CodedPicture
from vss_ros.core.motion.blocks import flow_of_blocks

try:
    import av
except ImportError as error:
    raise MissingLibraryError('av', 'video', cause=error) from error

GOP = 600  # intra pictures are forced where a stream starts; in between only the encoder's own limit
# Share of the picture that must have vectors. Told to avoid intra blocks, the encoder gave 0.39 to 0.80 of it
# vectors at cuts between unrelated scenes, 0.99 and more on a motorway at 25 and at 5 Hz, 0.97 and more in a
# town at 1 Hz.
MIN_COVERED = 0.9
ENCODER_OPTIONS = {
    'qmin': '8',
    'qmax': '8',
    'lmin': '1',
    'lmax': '1',
    'flags': '+mv4',
    'intra_penalty': '2000',
}


class MotionVectors:
    """Flow to the image before, from an MPEG-4 encoder and decoder that run on the images of one stream."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None

    def update(
        self, image: np.ndarray, wanted: bool, coded: Sequence[CodedPicture] = ()
    ) -> np.ndarray | None:
        if image.shape[:2] != self._size:
            self._open(*image.shape[:2])
        picture = self._round_trip(image)
        if not wanted or picture is None:
            return None
        vectors = picture.side_data.get('MOTION_VECTORS')
        if vectors is None:
            return None
        height, width = image.shape[:2]
        return flow_of_blocks(vectors.to_ndarray(), height, width, MIN_COVERED)

    def reset(self) -> None:
        self._size = None

    def _open(self, height: int, width: int) -> None:
        self._size = (height, width)
        encoder = av.CodecContext.create('mpeg4', 'w')
        encoder.width, encoder.height = width + width % 2, height + height % 2
        encoder.pix_fmt = 'yuv420p'
        encoder.framerate = Fraction(25)
        encoder.gop_size, encoder.max_b_frames, encoder.thread_count = GOP, 0, 1
        encoder.options = ENCODER_OPTIONS
        decoder = av.CodecContext.create('mpeg4', 'r')
        decoder.thread_count = 1
        decoder.options = {'flags2': '+export_mvs'}
        self._encoder, self._decoder, self._count = encoder, decoder, 0

    def _round_trip(self, image: np.ndarray) -> av.VideoFrame | None:
        """Encodes and decodes one image; the decoded picture carries the vectors."""
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)
        frame = av.VideoFrame.from_ndarray(planes, format='yuv420p')
        frame.pts, self._count = self._count, self._count + 1
        decoded = [p for packet in self._encoder.encode(frame) for p in self._decoder.decode(packet)]
        return decoded[-1] if decoded else None
