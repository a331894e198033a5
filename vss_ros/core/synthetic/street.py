"""The street of one clip: how it bends, how wide it is, what stands along it, what the weather is.

Two ways to say where something is:
  street coordinates (s, d): metres along the centre line, metres to the right of it;
  world coordinates (x, y, z): metres right, down and ahead of the start of the clip, the ground at y = 0.
The centre line is a circular arc, so both ways convert into each other exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STRAIGHT = 1e-5  # curvature below which an arc is a straight line to float32 precision (1/m)


@dataclass(frozen=True)
class Street:
    """What the seed decided. Lengths in metres, speeds in m/s, shares in 0..1."""

    curvature: float  # 1/m, positive bends to the right
    lane: float  # width of one lane
    parking: tuple[float, float]  # width of the parking strip left, right; 0 for none
    pavement: tuple[float, float]  # width of the pavement left, right
    garden: tuple[float, float]  # width between pavement and houses left, right
    grass: tuple[bool, bool]  # whether the ground behind the pavement is grass
    town: float  # 0 suburb (trees, houses) .. 1 centre (terraces, shops, people)
    busy: float  # 0 nobody about .. 1 rush hour
    speed: float  # mean speed of the camera car
    winter: bool  # bare trees

    @property
    def kerb(self) -> tuple[float, float]:
        """Distance d of the left kerb (negative) and the right kerb."""
        return -self.lane - self.parking[0], self.lane + self.parking[1]

    def heading(self, s: float) -> float:
        """Direction of the street at s: radians to the right of the world's z axis."""
        return self.curvature * s

    def place(self, s: float, d: float, height: float = 0.0) -> np.ndarray:
        """World position (3,) of a point `height` metres above street coordinates (s, d)."""
        angle = self.heading(s)
        if abs(self.curvature) < STRAIGHT:
            x, z = d, s
        else:
            radius = 1 / self.curvature
            x = radius + (d - radius) * np.cos(angle)
            z = -(d - radius) * np.sin(angle)
        return np.array([x, -height, z])

    def axes(self, s: float) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (3,) at s: to the right of the street, and along it."""
        angle = self.heading(s)
        right = np.array([np.cos(angle), 0.0, -np.sin(angle)])
        return right, np.array([np.sin(angle), 0.0, np.cos(angle)])

    def locate(self, x: np.ndarray, z: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
        """Street coordinates (s, d) of ground points; of the arc's turns the one nearest to s = `near`."""
        if abs(self.curvature) < STRAIGHT:
            return z, x
        radius = 1 / self.curvature
        sign = np.sign(self.curvature)
        angle, middle = np.arctan2(sign * z, sign * (radius - x)), self.heading(near)
        angle -= 2 * np.pi * np.round((angle - middle) / (2 * np.pi))
        return angle / self.curvature, radius - sign * np.hypot(x - radius, z)


def draw_street(rng: np.random.Generator) -> Street:
    """Choose a street."""
    town = float(rng.beta(1.3, 0.9))
    bend = 0.0 if rng.random() < 0.45 else float(rng.normal(0, 0.0035))
    parking = tuple(2.1 if rng.random() < 0.35 else 0.0 for _ in range(2))
    garden = tuple(float(rng.uniform(1.5, 6) * (rng.random() > town)) for _ in range(2))
    return Street(
        curvature=float(np.clip(bend, -0.009, 0.009)),
        lane=float(rng.uniform(3.2, 5.2)),
        parking=(parking[0], parking[1]),
        pavement=(float(rng.uniform(1.5, 3.6)), float(rng.uniform(1.5, 3.6))),
        garden=(garden[0], garden[1]),
        grass=(bool(rng.random() > town), bool(rng.random() > town)),
        town=town,
        busy=float(rng.uniform(0.15, 1)),
        speed=0.0 if rng.random() < 0.08 else float(rng.uniform(3, 12)),
        winter=bool(rng.random() < 0.55),
    )
