"""Short labelled clips made from labelled stills, for training what happens between key frames.

Labelled street images are rarely neighbours in time. A still is turned into a clip by driving a camera
into it: ground and upright things get a depth from where they stand (pop-up geometry), and objects
cut from other stills cross the view on their own paths, uncovering the true background behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields

import cv2
import numpy as np
from numpy.random import Generator

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import CELL, UNLABELLED
from vss_ros.training.augment import random_place, recolour_clip
from vss_ros.training.data import LabelledImages


@dataclass(frozen=True)
class Clip:
    """Neighbouring frames: images uint8 (T, H, W, 3) BGR and class ids uint8 (T, H, W).

    `flows`, where exactly known: float32 (T - 1, 2, h, w), in cells, each frame to the one before.
    """

    images: np.ndarray
    labels: np.ndarray
    flows: np.ndarray | None = None

    def frames(self, places: Sequence[int]) -> Clip:
        """Some of the frames, in this order; without flows."""
        return Clip(self.images[places], self.labels[places])

    def window(self, rng: Generator, size: Sequence[int]) -> Clip:
        """The same random window of (height, width) of every frame; without flows."""
        rows, columns = random_place(rng, self.labels.shape[1:], size)
        return Clip(self.images[:, rows, columns], self.labels[:, rows, columns])


@dataclass(frozen=True)
class SceneClasses:
    """What the classes mean for the geometry of a street, as `scene` of a class set says."""

    sky: tuple[int, ...]
    ground: tuple[int, ...]
    background: tuple[int, ...]
    objects: tuple[int, ...]  # may be cut out and moved on their own
    cars: tuple[int, ...]  # of the objects, what moves fastest
    horizon: float = 0.44  # share of the image's height

    def __post_init__(self) -> None:
        if not self.horizon < 1:
            raise SettingsError(f"horizon is {self.horizon}; use a share of the image's height, below 1")

    @classmethod
    def of(cls, classes: ClassSet) -> SceneClasses:
        """Those of a class set.

        Raises:
            SettingsError: the set does not say all of them, or says more.
        """
        wanted = [each.name for each in fields(cls) if each.default is MISSING]
        if set(classes.scene) != set(wanted):
            raise SettingsError(
                f'clips cannot be made of stills with the classes {classes.name}: its file has '
                f'{", ".join(classes.scene) or "nothing"} under `scene`; give it {", ".join(wanted)}, '
                'each a list of names'
            )
        sky, ground, background, objects, cars = (classes.scene[name] for name in wanted)
        return cls(sky, ground, background, objects, cars)


@dataclass(frozen=True)
class Cutout:
    """An object cut from a still: pixels, their mask, class, and the still's row where it stands."""

    image: np.ndarray
    mask: np.ndarray
    label: int
    foot: tuple[float, float]  # x, y in the still


def inverse_depth(label: np.ndarray, scene: SceneClasses) -> np.ndarray:
    """1 / distance of every `CELL`-th pixel, 1 at the lower border of the image: float32 (h, w).

    Ground gets that of a plane; objects that of the ground they stand on; background that of the
    farthest ground nearby, because cars hide where it really stands.
    """
    label = label[CELL // 2 :: CELL, CELL // 2 :: CELL]
    height, _ = label.shape
    rows = (np.arange(height) + 0.5) / height
    plane = np.clip((rows - scene.horizon) / (1 - scene.horizon), 0.01, 1)[:, None]
    ground = np.isin(label, scene.ground)
    # The row of the nearest ground at or below each pixel; the lower border where there is none.
    below = np.where(ground, np.arange(height)[:, None], height - 1)
    below = np.minimum.accumulate(below[::-1], 0)[::-1]
    depth = plane[below, 0]
    farthest = np.where(ground, plane, 1.0).min(0)
    farthest = cv2.erode(farthest[None].astype(np.float32), np.ones((1, 25), np.uint8))
    depth = np.where(np.isin(label, scene.background), farthest, depth)
    return np.where(np.isin(label, scene.sky), 0.0, depth).astype(np.float32)


def cut_out(still: LabelledImages, scene: SceneClasses, least_area: int = 150) -> list[Cutout]:
    """All separate objects of the stills that are large enough and do not touch the border."""
    cutouts = []
    for image, label in zip(still.images, still.labels, strict=True):
        for value in scene.objects:
            mask = (label == value).astype(np.uint8)
            count, parts, boxes, _ = cv2.connectedComponentsWithStats(mask)
            for part in range(1, count):
                left, top, width, height, area = boxes[part]
                right, bottom = left + width, top + height
                inside = left > 1 and right < label.shape[1] - 1 and top > 1
                if area < least_area or not inside or bottom > label.shape[0] - 1:
                    continue
                here = np.s_[top:bottom, left:right]
                cutouts.append(
                    Cutout(
                        image[here].copy(),
                        (parts[here] == part).astype(np.float32),
                        value,
                        (left + width / 2, float(bottom)),
                    )
                )
    return cutouts


def to_cells(flow: np.ndarray) -> np.ndarray:
    """A flow in pixels, float32 (H, W, 2), averaged to the 1/4 map in cells: (2, h, w)."""
    height, width = flow.shape[:2]
    small = cv2.resize(flow, (-(-width // CELL), -(-height // CELL)), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small.transpose(2, 0, 1)) / np.float32(CELL)


class StillDriver:
    """Drives a camera into labelled stills; every clip depends on the generator handed in only."""

    def __init__(
        self, stills: LabelledImages, scene: SceneClasses, recoloured: bool = True, mirrored: bool = True
    ) -> None:
        self._stills, self._scene = stills, scene
        self._recoloured, self._mirrored = recoloured, mirrored
        self._depths = [inverse_depth(label, scene) for label in stills.labels]
        self._cutouts = cut_out(stills, scene)

    def clip(self, rng: Generator, frames: int, backwards: bool = False) -> Clip:
        """A new clip of the stills' size."""
        index = int(rng.integers(len(self._stills)))
        image, label = self._stills.images[index], self._stills.labels[index]
        height, width = label.shape
        look = int(rng.integers(1 << 62))
        mirrored = rng.random() < 0.5 and self._mirrored
        camera = _Camera(rng, width, height * self._scene.horizon, frames)
        movers = [
            _Mover(rng, self._cutouts, width, height, self._scene, frames)
            for _ in range(int(rng.integers(1, 7)) if self._cutouts else 0)
        ]
        movers.sort(key=lambda mover: mover.scale[frames // 2])
        images, labels = [], []
        for t in range(frames):
            x, y = camera.source(t, self._depths[index])
            seen = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
            known = cv2.remap(
                label, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=UNLABELLED
            )
            for mover in movers:
                mover.draw(t, seen, known)
            if mirrored:
                seen, known = seen[:, ::-1], known[:, ::-1]
            images.append(np.ascontiguousarray(seen))
            labels.append(known)
        if self._recoloured:
            images = recolour_clip(look, images)
        order = slice(None, None, -1 if backwards else 1)
        return Clip(np.stack(images[order]), np.stack(labels[order]))


class _Camera:
    """Forward motion with a little turning and shaking, into a still.

    Distances are in units of that to the ground at the lower border: some 3 m, so that 10 m/s seen at
    15 Hz is a speed of about 0.2.
    """

    def __init__(self, rng: Generator, width: int, horizon: float, frames: int) -> None:
        speed = rng.uniform(0.0, 0.22) if rng.random() < 0.85 else 0.0
        self._centre = np.array([width * rng.uniform(0.4, 0.6), horizon])
        self._zoom = rng.uniform(1.0, 1.4)
        start = rng.uniform(-0.3, 0.1) * speed * frames
        self._advance = start + speed * np.arange(frames)
        turn = rng.normal(0, 3) + rng.normal(0, 0.6, frames).cumsum() * 0.3
        self._shift = np.stack([(turn * np.ones(frames)).cumsum(), rng.normal(0, 0.7, frames)], 1)
        self._shift -= self._shift[frames // 2]

    def source(self, t: int, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where in the still each pixel of frame `t` comes from: float32 (H, W) twice.

        Args:
            depth: inverse depth of the still, see `inverse_depth`.
        """
        height, width = depth.shape
        y, x = np.mgrid[:height, :width].astype(np.float32) * CELL + CELL / 2
        x = (x - self._centre[0]) / self._zoom + self._shift[t, 0]
        y = (y - self._centre[1]) / self._zoom + self._shift[t, 1]
        advance = self._advance[t]
        # A point at inverse depth d moves outwards by 1 / (1 - advance * d), but d is known in the
        # still only: search for the source whose own motion ends here.
        keep = 1 / np.maximum(1 + advance * depth, 0.3)
        for _ in range(4):
            source_x, source_y = self._centre[0] + x * keep, self._centre[1] + y * keep
            near = cv2.remap(
                depth,
                (source_x / CELL - 0.5).astype(np.float32),
                (source_y / CELL - 0.5).astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            keep = 0.5 * keep + 0.5 * np.clip(1 - advance * near, 0.25, 2.5)
        size = width * CELL, height * CELL
        return (
            cv2.resize((self._centre[0] + x * keep).astype(np.float32), size),
            cv2.resize((self._centre[1] + y * keep).astype(np.float32), size),
        )


class _Mover:
    """A cut-out on a path of its own: growing as it comes closer, standing on the ground."""

    def __init__(
        self,
        rng: Generator,
        cutouts: Sequence[Cutout],
        width: int,
        height: int,
        scene: SceneClasses,
        frames: int,
    ) -> None:
        # One object in two is a car.
        cars = [cutout for cutout in cutouts if cutout.label in scene.cars]
        pool = cars if cars and rng.random() < 0.5 else cutouts
        self._cutout = pool[int(rng.integers(len(pool)))]
        if rng.random() < 0.5:
            self._mirror()
        horizon = height * scene.horizon
        middle = np.exp(rng.normal(0, 0.35))
        time = np.arange(frames) - rng.integers(0, frames)
        if rng.random() < 0.4:
            # Oncoming at constant speed: every frame it is closer by a share of the distance it has at time
            # 0, so it grows ever faster. Two cars at 50 km/h, 20 m apart, seen at 15 Hz: a share of 0.09.
            distance = 1 - rng.uniform(0.02, 0.14) * time
            self.scale = np.clip(middle / np.maximum(distance, 0.1), 0.15, 5.0)
        else:
            rate = rng.normal(0.03, 0.07)  # growth a frame
            self.scale = np.clip(middle * np.exp(rate * time), 0.15, 3.5)
        # What grows also leaves the centre of the view, like everything that comes closer.
        side = rng.uniform(-0.1, 1.1) * width
        x = width / 2 + (side - width / 2) * self.scale / middle + rng.normal(0, 4) * time
        y = horizon + max(self._cutout.foot[1] - horizon, 4.0) * self.scale
        self._feet = np.stack([x, y], 1)

    def _mirror(self) -> None:
        cut = self._cutout
        self._cutout = Cutout(
            np.ascontiguousarray(cut.image[:, ::-1]),
            np.ascontiguousarray(cut.mask[:, ::-1]),
            cut.label,
            cut.foot,
        )

    def draw(self, t: int, image: np.ndarray, label: np.ndarray) -> None:
        """Paint the object over frame `t`, in place."""
        cut, scale = self._cutout, self.scale[t]
        height, width = cut.mask.shape
        left = self._feet[t, 0] - scale * width / 2
        top = self._feet[t, 1] - scale * height
        x0, y0 = max(int(left), 0), max(int(top), 0)
        x1 = min(int(left + scale * width) + 1, label.shape[1])
        y1 = min(int(top + scale * height) + 1, label.shape[0])
        if x1 - x0 < 2 or y1 - y0 < 2:
            return
        affine = np.array([[scale, 0, left - x0], [0, scale, top - y0]], np.float32)
        size = (x1 - x0, y1 - y0)
        pixels = cv2.warpAffine(cut.image, affine, size, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(cut.mask, affine, size)[..., None]
        here = np.s_[y0:y1, x0:x1]
        image[here] = (image[here] * (1 - mask) + pixels * mask).astype(np.uint8)
        label[here][mask[..., 0] > 0.5] = cut.label
