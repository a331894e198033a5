"""Weather and time of day: sun, ambient light, haze, and what lens and sensor make of the picture."""

from __future__ import annotations

import cv2
import numpy as np


class Light:
    """Draws a weather, lights surfaces with it, and turns a rendered picture into a camera image."""

    def __init__(self, rng: np.random.Generator) -> None:
        kind = rng.choice(['clear', 'overcast', 'hazy', 'dusk'], p=[0.45, 0.3, 0.12, 0.13])
        self.kind = str(kind)
        self.azimuth = float(rng.uniform(-np.pi, np.pi))
        elevation = float(rng.uniform(0.35, 0.9))
        level = np.cos(elevation)
        self.sun = np.array([level * np.sin(self.azimuth), -np.sin(elevation), level * np.cos(self.azimuth)])
        direct, ambient, self.exposure, visibility, cloud = {
            'clear': (0.72, 0.56, 1.08, rng.uniform(400, 900), rng.uniform(0.0, 0.6)),
            'overcast': (0.14, 0.9, 1.0, rng.uniform(250, 600), rng.uniform(0.75, 1.0)),
            'hazy': (0.18, 0.78, 1.0, rng.uniform(110, 220), rng.uniform(0.6, 1.0)),
            'dusk': (0.06, 0.46, 0.85, rng.uniform(600, 1200), rng.uniform(0.4, 1.0)),
        }[self.kind]
        self.exposure *= float(rng.uniform(0.8, 1.15))
        self.cloud = float(cloud)
        warm = float(rng.uniform(0.0, 0.14))
        self.direct = direct * np.array([1 - warm, 1 - warm / 3, 1 + warm / 2])
        self.ambient = ambient * np.array([1.06, 1.0, 0.95])
        self.shadow = float(direct / (direct + ambient))  # how much a cast shadow takes away
        self.visibility = float(visibility)
        bright = {'clear': 235, 'overcast': 240, 'hazy': 240, 'dusk': 150}[self.kind]
        self.haze_colour = bright * np.array([1.0, 0.985, 0.96])
        self.noise_level = float(rng.uniform(1.0, 3.0) * (1.6 if self.kind == 'dusk' else 1.0))
        self.blur = float(rng.uniform(0.35, 0.75))  # pixels at a width of 480
        self.vignette = float(rng.uniform(0.05, 0.3))
        self.contrast = float(rng.uniform(1.0, 1.4))
        self.saturation = float(rng.uniform(0.5, 0.95))
        self.balance = 1 + rng.normal(0, 0.025, 3)

    def gains(self, placed: np.ndarray, local: np.ndarray, tints: np.ndarray) -> np.ndarray:
        """Factor on B, G, R of each surface (n, 3): the light on the side that the camera sees.

        Args:
            placed, local: the surfaces' [right, down, origin] in world and camera axes, (n, 3, 3).
        """
        normal = np.cross(placed[:, :, 1], placed[:, :, 0])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
        normal *= np.sign(np.linalg.det(local))[:, None]
        facing = np.maximum(normal @ self.sun, 0)[:, None]
        skyward = 1 - 0.12 * normal[:, 1:2]  # y points down: surfaces facing up see more sky
        return tints * (self.ambient * skyward + self.direct * 1.25 * facing)

    @property
    def ground_gain(self) -> np.ndarray:
        """Factor on B, G, R of flat ground in the sun, (3,)."""
        return 1.12 * self.ambient + self.direct * 1.25 * -self.sun[1]

    def haze_at(self, depth: np.ndarray) -> np.ndarray:
        """Share of haze in front of something `depth` metres away, 0..1."""
        return 1 - np.exp(-depth / self.visibility)

    def expose(self, colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Camera image (H, W, 3) uint8 BGR of a rendered picture (H, W, 4): lens, exposure, noise."""
        height, width = colour.shape[:2]
        sigma = self.blur * max(width / 480, 0.4)
        image = cv2.GaussianBlur(colour[:, :, :3], (0, 0), sigma)
        image = cv2.multiply(image, self._falloff(height, width), scale=1 / 255)
        image = cv2.transform(image, self._colour_mix())
        image = cv2.LUT(image, self._curve())
        grain = rng.standard_normal((height, width), np.float32) * self.noise_level
        grain = np.rint(grain).astype(np.int16)
        return cv2.add(image, cv2.merge([grain] * 3), dtype=cv2.CV_8U)

    def _colour_mix(self) -> np.ndarray:
        """Fades colours towards grey, (3, 3)."""
        grey = np.tile([0.114, 0.587, 0.299], (3, 1))
        return self.saturation * np.eye(3) + (1 - self.saturation) * grey

    def _curve(self) -> np.ndarray:
        """Exposure, white balance and contrast as one table (256, 1, 3)."""
        value = np.arange(256)[:, None] / 255 * self.balance * self.exposure
        value = 0.42 * (value / 0.42) ** self.contrast
        bright = np.maximum(value - 0.9, 0)
        value = np.minimum(value, 0.9) + 0.1 * (1 - np.exp(-bright / 0.1))  # highlights roll off
        return np.rint(np.clip(value * 255, 0, 255)).astype(np.uint8)[:, None]

    def _falloff(self, height: int, width: int) -> np.ndarray:
        """Darker corners, (H, W, 3) uint8."""
        y, x = np.linspace(-1, 1, height)[:, None] ** 2, np.linspace(-1, 1, width) ** 2
        shade = np.rint(255 * (1 - self.vignette * (x + y) / 2)).astype(np.uint8)
        return cv2.merge([shade] * 3)
