"""A seeded clip of a drive through a street, with exact masks, optical flow and occlusion."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vss_ros.core.encodings import MAX_SIDE
from vss_ros.core.errors import SettingsError
from vss_ros.core.synthetic.camera import CameraCar, Lens
from vss_ros.core.synthetic.ground import Ground
from vss_ros.core.synthetic.layout import Layout
from vss_ros.core.synthetic.light import Light
from vss_ros.core.synthetic.motion import flow_and_occlusion
from vss_ros.core.synthetic.render import FAR, FIRST_SURFACE, Picture, draw_surfaces
from vss_ros.core.synthetic.scene import Scene
from vss_ros.core.synthetic.sky import Sky
from vss_ros.core.synthetic.street import draw_street
from vss_ros.core.synthetic.traffic import Traffic

SMALLEST_SIDE = 16  # pixels
BEHIND = 12.0  # metres of street built behind the camera
LONGEST_S = 10_000  # of a drive; its whole street is built at the start, in a second per 1000 to 2000 s

STREET_CLASSES = 'camvid11'  # the class set of their masks


@dataclass(frozen=True, eq=False)
class StreetFrame:
    """One frame.

    Attributes:
        image: uint8 (H, W, 3) BGR.
        mask: uint8 (H, W), CamVid-11 class ids.
        flow: float32 (2, H, W), pixels, x right then y down, current -> previous frame: what is seen at
            a position was at position + flow one frame before. Zero on the first frame.
        occlusion: bool (H, W), True where what is seen now was hidden or outside the image one frame
            before. True everywhere on the first frame.
        stamp_ns: time since the start of the clip.
    """

    image: np.ndarray
    mask: np.ndarray
    flow: np.ndarray
    occlusion: np.ndarray
    stamp_ns: int


class StreetClip:
    """A drive through a street. Iterate over it, or take any frame by its number; both give the same bytes.

    Args:
        seed: chooses street, weather, traffic and drive, 0 or more.
        frames: length, 1 or more.
        height, width: image size in pixels, 16 to 8192 each.
        rate: frames per second.

    Raises:
        SettingsError: an argument is out of range, or the drive takes longer than LONGEST_S.
    """

    def __init__(
        self, seed: int, frames: int, height: int = 360, width: int = 480, rate: float = 15.0
    ) -> None:
        _check_whole('seed', seed, 0)
        _check_whole('frames', frames, 1)
        _check_whole('height', height, SMALLEST_SIDE)
        _check_whole('width', width, SMALLEST_SIDE)
        if max(height, width) > MAX_SIDE:
            raise SettingsError(f'an image is {width}x{height}; use sides of up to {MAX_SIDE} pixels')
        if not (np.isfinite(rate) and rate > 0):
            raise SettingsError(f'rate is {rate}; use a number of frames per second above 0')
        if frames / rate > LONGEST_S:
            raise SettingsError(
                f'rate is {rate}, at which {frames} frames of a street take {frames / rate:g} s; '
                f'use a higher rate or fewer frames, for {LONGEST_S} s at most'
            )
        self.seed, self.frames, self.rate = seed, frames, float(rate)

        def stream(number: int) -> np.random.Generator:
            return np.random.default_rng([seed, number])

        self.street = draw_street(stream(0))
        self.light = Light(stream(1))
        self.camera = CameraCar(self.street, stream(2))
        seconds = frames / self.rate
        stretch = -BEHIND, self.camera.station(seconds) + FAR * 0.75
        self.scene = Scene()
        layout = Layout(self.scene, self.street, self.light, stretch, stream(3))
        layout.fill()
        Traffic(self.scene, self.street, self.camera, stretch, seconds, layout.crossings, stream(4)).fill()
        self.scene.freeze()
        self.ground = Ground(self.street, self.light, layout.kinds, stretch[0], layout.shade_edge, stream(5))
        self.sky = Sky(self.street, self.light, stream(6))
        self.lens = Lens(height, width, self.camera.focal_share)
        self._last: tuple[int, Picture] | None = None  # the picture drawn last, for the next flow

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[StreetFrame]:
        return (self[index] for index in range(self.frames))

    def __getitem__(self, index: int) -> StreetFrame:
        """Frame `index`, 0 <= index < frames.

        Raises:
            IndexError: there is no such frame.
        """
        index = operator.index(index)
        if not 0 <= index < self.frames:
            raise IndexError(f'frame {index} of a clip of {self.frames} frames')
        before = self._picture(index - 1) if index else None
        now = self._picture(index)
        if before is None:
            flow = np.zeros((2, *now.labels.shape), np.float32)
            occlusion = np.ones(now.labels.shape, bool)
        else:
            flow, occlusion = flow_and_occlusion(now, before)
        image = self.light.expose(now.colour, np.random.default_rng([self.seed, 7, index]))
        return StreetFrame(image, now.labels.copy(), flow, occlusion, self.stamp_ns(index))

    def stamp_ns(self, index: int) -> int:
        """Time of a frame since the start of the clip, in nanoseconds."""
        return round(index * 1e9 / self.rate)

    def _picture(self, index: int) -> Picture:
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        time = index / self.rate
        height, width = self.lens.height, self.lens.width
        picture = Picture(
            colour=np.zeros((height, width, 4), np.uint8),
            labels=np.zeros((height, width), np.uint8),
            inverse_depth=np.zeros((height, width), np.float32),
            surface=np.zeros((height, width), np.int32),
            matrices=np.zeros((FIRST_SURFACE + len(self.scene), 3, 3)),
        )
        pose, lens = self.camera.pose(time), self.lens.matrix
        self.sky.draw(picture, pose, lens)
        self.ground.draw(picture, pose, lens, self.camera.station(time))
        draw_surfaces(picture, self.scene, pose.rotation.T, pose.position, self.scene.placed(time), lens,
                      self.light)  # fmt: skip
        self._last = index, picture
        return picture


def _check_whole(name: str, value: int, least: int) -> None:
    """Raise SettingsError unless `value` is a whole number of at least `least`."""
    try:
        is_good = operator.index(value) >= least and not isinstance(value, bool)
    except TypeError:
        is_good = False
    if not is_good:
        raise SettingsError(f'{name} is {value!r}; use a whole number of {least} or more')
