"""The ground: asphalt, markings, kerbs, pavement and grass, painted once and looked up per pixel.

The street is a row of chunks of equal length, of a few kinds (plain, side road, zebra crossing). Each
kind is painted once into a strip of the atlas with a margin that continues into a plain chunk, so that
strips join without a seam. Rows of the atlas run along the street, columns across it.
"""

from __future__ import annotations

import cv2
import numpy as np

from vss_ros.core.synthetic.camera import Pose
from vss_ros.core.synthetic.light import Light
from vss_ros.core.synthetic.pavement import (
    CHUNK,
    HALF_WIDTH,
    MARGIN,
    TEXEL_ACROSS,
    TEXEL_ALONG,
    paint_chunks,
)
from vss_ros.core.synthetic.render import FAR, GROUND, Picture
from vss_ros.core.synthetic.street import Street

LEVELS = 7  # copies of the atlas, each half as long as the one before
GRAIN_TEXEL = 0.01


class Ground:
    """Paints the ground of one clip.

    Args:
        kinds: index into KINDS of each chunk along the street; chunk 0 starts at s = `start`.
        shade_edge: for every metre from `start`: how far from the middle of the street the shadow of
            the houses ends, negative if they stand on the left; 0 where there is none.
    """

    def __init__(
        self,
        street: Street,
        light: Light,
        kinds: np.ndarray,
        start: float,
        shade_edge: np.ndarray,
        rng: np.random.Generator,
    ) -> None:
        self.street, self.light, self.kinds, self.start = street, light, kinds, start
        self.shade_edge = shade_edge.astype(np.float32)
        atlas, self.labels = paint_chunks(street, rng)
        gain = np.arange(256)[:, None] * light.ground_gain
        atlas = cv2.LUT(atlas, np.minimum(gain, 255).astype(np.uint8)[:, None])
        self.levels = [atlas]
        for level in range(1, LEVELS):
            rows, columns = self.levels[-1].shape[:2]
            size = columns // 2 if level > 4 else columns, rows // 2
            self.levels.append(cv2.resize(self.levels[-1], size, interpolation=cv2.INTER_AREA))
        grain = rng.normal(0, 1, (512, 512)).astype(np.float32)
        grain = 0.7 * grain + 1.5 * cv2.GaussianBlur(grain, (0, 0), 1.2)
        self.grain = np.clip(128 + 11 * grain, 0, 255).astype(np.uint8)

    def draw(self, picture: Picture, pose: Pose, lens: np.ndarray, near: float) -> None:
        """Fill the pixels below the horizon with ground; sets colour, label, depth and number.

        Args:
            near: station s of the camera.
        """
        view, eye = pose.rotation.T, pose.position
        matrix = lens @ view @ np.array([[1, 0, -eye[0]], [0, 0, -eye[1]], [0, 1, -eye[2]]])
        picture.matrices[GROUND] = matrix
        inverse = np.linalg.inv(matrix)
        height, width = picture.surface.shape
        x, y = np.arange(width), np.arange(height)[:, None]
        inverse_depth = inverse[2, 0] * x + (inverse[2, 1] * y + inverse[2, 2])
        top = int(np.argmax((inverse_depth > 1 / FAR).any(axis=1)))
        if not (inverse_depth[top] > 1 / FAR).any():
            return
        inverse_depth, y = inverse_depth[top:], y[top:]
        is_ground = inverse_depth > 1 / FAR
        depth = 1 / np.where(is_ground, inverse_depth, 1.0)
        world_x = (inverse[0, 0] * x + (inverse[0, 1] * y + inverse[0, 2])) * depth
        world_z = (inverse[1, 0] * x + (inverse[1, 1] * y + inverse[1, 2])) * depth
        s, d = self.street.locate(world_x, world_z, near)
        colour, labels = self._look_up(s, d, depth, lens[0, 0], -eye[1])
        picture.colour[top:][is_ground, :3] = colour[is_ground]
        picture.labels[top:][is_ground] = labels[is_ground]
        picture.inverse_depth[top:][is_ground] = inverse_depth[is_ground]
        picture.surface[top:][is_ground] = GROUND

    def _look_up(
        self, s: np.ndarray, d: np.ndarray, depth: np.ndarray, focal: float, eye_height: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Shaded colour and label at street coordinates (s, d)."""
        along = s - self.start
        chunk = np.clip(np.floor(along / CHUNK), 0, len(self.kinds) - 1).astype(np.intp)
        within = along - chunk * CHUNK
        strip = (CHUNK + 2 * MARGIN) / TEXEL_ALONG
        row = (within + MARGIN) / TEXEL_ALONG + np.take(self.kinds, chunk) * strip
        column = (d + HALF_WIDTH) / TEXEL_ACROSS
        row, column = row.astype(np.float32), column.astype(np.float32)
        rows, columns = self.labels.shape
        labels = self.labels[
            np.clip(row, 0, rows - 1).astype(np.intp), np.clip(column, 0, columns - 1).astype(np.intp)
        ]
        middle = depth[:, depth.shape[1] // 2]
        colour = self._shrunk(row, column, middle**2 / (focal * eye_height))
        self._add_grain(colour, s, d, middle)
        edge = np.take(self.shade_edge, np.clip(along, 0, len(self.shade_edge) - 1).astype(np.intp))
        shaded = np.clip((d * np.sign(edge) - np.abs(edge)) / 0.12 + 0.5, 0, 1)
        light = (1 - self.light.shadow * shaded * (edge != 0)).astype(np.float32)
        light *= np.exp(-middle / self.light.visibility).astype(np.float32)[:, None]
        haze = self.light.haze_at(middle)[:, None] * self.light.haze_colour
        lit = colour * light[:, :, None] + haze[:, None].astype(np.float32)
        return lit.astype(np.uint8), labels

    def _shrunk(self, row: np.ndarray, column: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """Colour (h, w, 3) float32, from the two copies of the atlas nearest to each row's footprint.

        Args:
            footprint: metres of street that one pixel of the row covers, (h,).
        """
        level = np.clip(np.log2(np.maximum(footprint / TEXEL_ALONG, 1e-6)), 0, LEVELS - 1)
        colour = np.zeros((*row.shape, 3), np.float32)
        for number, atlas in enumerate(self.levels):
            weight = np.maximum(1 - np.abs(level - number), 0).astype(np.float32)
            used = np.flatnonzero(weight)
            if not len(used):
                continue
            part = slice(used[0], used[-1] + 1)
            across = 2.0 ** -max(number - 4, 0)
            patch = cv2.remap(atlas, column[part] * across - 0.5, row[part] * 0.5**number - 0.5,
                              cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
            colour[part] += patch * weight[part, None, None]
        return colour

    def _add_grain(self, colour: np.ndarray, s: np.ndarray, d: np.ndarray, depth: np.ndarray) -> None:
        """Fine roughness, which the atlas is too coarse for, on the nearest rows."""
        fade = np.clip(1.6 - depth / 9, 0, 1).astype(np.float32)
        used = np.flatnonzero(fade)
        if not len(used):
            return
        part = slice(used[0], used[-1] + 1)
        size = self.grain.shape[0]
        x = ((d[part] / GRAIN_TEXEL) % size).astype(np.float32)
        y = ((s[part] / GRAIN_TEXEL) % size).astype(np.float32)
        grain = cv2.remap(self.grain, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        factor = 1 + (grain.astype(np.float32) - 128) / 128 * fade[part, None]
        colour[part] *= factor[:, :, None]
