"""The sky and the skyline at infinity: one panorama around the camera that only rotation moves."""

from __future__ import annotations

import cv2
import numpy as np

from vss_ros.core.synthetic.camera import Pose
from vss_ros.core.synthetic.light import Light
from vss_ros.core.synthetic.render import SKY, Picture
from vss_ros.core.synthetic.street import Street
from vss_ros.core.synthetic.texture import noise

COLUMNS = 3072  # around the whole horizon
BOTTOM, TOP = -0.12, 1.05  # slope (height over distance) of the lowest and the highest row
ROWS = 512
SKY_LABEL, BUILDING, TREE = 0, 1, 5


class Sky:
    """Paints the panorama of one clip."""

    def __init__(self, street: Street, light: Light, rng: np.random.Generator) -> None:
        soft = self._clouds(light, rng)
        self.picture = cv2.resize(soft, (COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC)
        self.labels = np.full((ROWS, COLUMNS), SKY_LABEL, np.uint8)
        self._skyline(light, rng, street.town)

    def _clouds(self, light: Light, rng: np.random.Generator) -> np.ndarray:
        """The sky without a skyline: soft, so a quarter of the panorama's size is enough."""
        rows, columns = ROWS // 4, COLUMNS // 4
        dusk = light.kind == 'dusk'
        slope = np.linspace(TOP, BOTTOM, rows, dtype=np.float32)[:, None]
        low = np.exp(-np.maximum(slope, 0) / 0.28)[:, :, None]
        zenith = np.array([250, 214, 172]) if light.kind == 'clear' else np.array([236, 232, 226])
        if dusk:
            zenith = np.array([205, 192, 178])
        picture = np.repeat(zenith * (1 - low) + np.array([252, 248, 244]) * low, columns, axis=1)
        # Clouds get flatter and closer together towards the horizon.
        clouds = noise(rng, rows, columns, [65, 32, 15, 7, 3.5])
        stretch = np.clip(0.12 + (slope - BOTTOM), 0, 1) ** 0.55 * (rows - 1)
        x = np.arange(columns, dtype=np.float32)[None]
        x, y = np.broadcast_arrays(x, stretch.astype(np.float32))
        clouds = cv2.remap(clouds, x.copy(), y.copy(), cv2.INTER_LINEAR)
        cover = np.clip((clouds + light.cloud * 1.7 - 1.1) * 2.2, 0, 1)[:, :, None]
        tone = 244 + 24 * noise(rng, rows, columns, [37, 17, 7])[:, :, None]
        tone = tone * (0.8 if dusk else 1.0) * np.array([1.0, 0.985, 0.965])
        picture += cover * 0.9 * (tone - picture)
        azimuth = (np.arange(columns) / columns * 2 - 1) * np.pi
        away = np.arccos(np.clip(np.cos(azimuth - light.azimuth), -1, 1))[None, :]
        glow = np.exp(-((away / 0.7) ** 2) - ((slope - 0.6) / 0.5) ** 2)[:, :, None]
        picture += 60 * glow * (not dusk) * (1 - 0.6 * cover)
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _skyline(self, light: Light, rng: np.random.Generator, town: float) -> None:
        """Far trees and roofs, pale with haze."""
        haze = float(np.clip(light.haze_at(np.array(220.0)), 0.25, 0.8))
        slope = np.linspace(TOP, BOTTOM, ROWS, dtype=np.float32)[:, None]
        slope = slope[slope[:, 0] < 0.15]  # nothing reaches higher
        picture, labels = self.picture[-len(slope) :], self.labels[-len(slope) :]
        rough = noise(rng, 8, COLUMNS, [160, 60, 22, 9, 4])[4]
        trees = 0.045 + 0.022 * rough * 1.4
        roofs = np.zeros(COLUMNS, np.float32)
        x = 0
        while x < COLUMNS:
            wide = int(rng.integers(14, 60))
            if rng.random() < 0.25 + 0.6 * town:
                roofs[x : x + wide] = rng.uniform(0.02, 0.075)
            x += wide
        grey = noise(rng, len(slope), COLUMNS, [20, 6, 3])[:, :, None]
        green = np.array([52, 66, 62]) if light.kind != 'dusk' else np.array([30, 34, 32])
        for height, base, label in ((roofs, np.array([88, 92, 100]), BUILDING), (trees, green, TREE)):
            inside = slope < height[None, :]
            tone = base * (1 + 0.25 * grey) * (1 - haze) + light.haze_colour * haze
            picture[inside] = tone[inside]
            labels[inside] = label

    def draw(self, picture: Picture, pose: Pose, lens: np.ndarray) -> None:
        """Fill the whole picture; what is nearer is drawn over it."""
        picture.matrices[SKY] = lens @ pose.rotation.T
        height, width = picture.surface.shape
        ray = (pose.rotation @ np.linalg.inv(lens)).astype(np.float32)
        x = np.arange(width, dtype=np.float32)
        y = np.arange(height, dtype=np.float32)[:, None]
        dx, dy, dz = (row[0] * x + (row[1] * y + row[2]) for row in ray)
        used = slice(0, max(int(np.count_nonzero(dy.min(1) < 0.15)), 1))
        dx, dy, dz = dx[used], dy[used], dz[used]
        column = (np.arctan2(dx, dz) * np.float32(0.5 / np.pi) + np.float32(0.5)) * COLUMNS
        row = (TOP + dy / np.sqrt(dx * dx + dz * dz)) * np.float32((ROWS - 1) / (TOP - BOTTOM))
        picture.colour[used, :, :3] = _look_up(self.picture, column, row)
        at = np.clip(row, 0, ROWS - 1).astype(np.int32) * COLUMNS + column.astype(np.int32) % COLUMNS
        picture.labels[used] = np.take(self.labels, at)
        picture.surface[:] = SKY
        picture.inverse_depth[:] = 0


def _look_up(panorama: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    return cv2.remap(panorama, column - 0.5, np.clip(row, 0, ROWS - 1), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_WRAP)  # fmt: skip
