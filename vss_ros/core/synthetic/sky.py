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
        slope = np.linspace(TOP, BOTTOM, ROWS, dtype=np.float32)[:, None]
        low = np.exp(-np.maximum(slope, 0) / 0.28)[:, :, None]
        zenith = np.array([250, 214, 172]) if light.kind == 'clear' else np.array([236, 232, 226])
        if light.kind == 'dusk':
            zenith = np.array([205, 192, 178])
        picture = (zenith * (1 - low) + np.array([252, 248, 244]) * low).astype(np.float32)
        picture = np.repeat(picture, COLUMNS, axis=1)
        # Clouds get flatter and closer together towards the horizon.
        clouds = noise(rng, ROWS, COLUMNS, [260, 130, 60, 28, 14])
        stretch = np.clip(0.12 + (slope[:, 0] - BOTTOM), 0, 1) ** 0.55 * (ROWS - 1)
        x, y = np.meshgrid(np.arange(COLUMNS, dtype=np.float32), stretch)
        clouds = cv2.remap(clouds, x, y.astype(np.float32), cv2.INTER_LINEAR)
        cover = np.clip((clouds + light.cloud * 1.7 - 1.1) * 2.2, 0, 1)[:, :, None]
        tone = 244 + 24 * noise(rng, ROWS, COLUMNS, [150, 70, 30])[:, :, None]
        tone = tone * (0.8 if light.kind == 'dusk' else 1.0) * np.array([1.0, 0.985, 0.965])
        picture += cover * 0.9 * (tone - picture)
        azimuth = (np.arange(COLUMNS) / COLUMNS * 2 - 1) * np.pi
        away = np.arccos(np.clip(np.cos(azimuth - light.azimuth), -1, 1))[None, :]
        glow = np.exp(-((away / 0.7) ** 2) - ((slope - 0.6) / 0.5) ** 2)[:, :, None]
        picture += 60 * glow * (light.kind != 'dusk') * (1 - 0.6 * cover)
        self.labels = np.full((ROWS, COLUMNS), SKY_LABEL, np.uint8)
        self._skyline(picture, slope, light, rng, street.town)
        self.picture = np.clip(picture, 0, 255).astype(np.uint8)

    def _skyline(
        self, picture: np.ndarray, slope: np.ndarray, light: Light, rng: np.random.Generator, town: float
    ) -> None:
        """Far trees and roofs, pale with haze."""
        haze = float(np.clip(light.haze_at(np.array(220.0)), 0.25, 0.8))
        rough = noise(rng, 8, COLUMNS, [160, 60, 22, 9, 4])[4]
        trees = 0.045 + 0.022 * rough * 1.4
        roofs = np.zeros(COLUMNS, np.float32)
        x = 0
        while x < COLUMNS:
            wide = int(rng.integers(14, 60))
            if rng.random() < 0.25 + 0.6 * town:
                roofs[x : x + wide] = rng.uniform(0.02, 0.075)
            x += wide
        grey = noise(rng, ROWS, COLUMNS, [20, 6, 3])[:, :, None]
        green = np.array([52, 66, 62]) if light.kind != 'dusk' else np.array([30, 34, 32])
        for height, base, label in ((roofs, np.array([88, 92, 100]), BUILDING), (trees, green, TREE)):
            inside = slope < height[None, :]
            tone = base * (1 + 0.25 * grey) * (1 - haze) + light.haze_colour * haze
            picture[inside] = tone[inside]
            self.labels[inside] = label

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
