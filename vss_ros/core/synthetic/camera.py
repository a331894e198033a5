"""The camera behind the windscreen: its lens, and where it is at a given time.

Camera axes: x right, y down, z ahead. The centre of the pixel in column 0, row 0 is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vss_ros.core.synthetic.street import Street


@dataclass(frozen=True)
class Pose:
    """Where something is: world point = rotation @ own point + position."""

    rotation: np.ndarray  # (3, 3)
    position: np.ndarray  # (3,)


def rotation(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """(3, 3) rotation, radians: yaw turns right, pitch up, roll clockwise."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


@dataclass(frozen=True)
class Lens:
    """Pinhole camera for one image size."""

    height: int
    width: int
    focal_share: float  # focal length over the larger of the width and 4/3 of the height

    @property
    def matrix(self) -> np.ndarray:
        """Camera coordinates -> homogeneous pixels, (3, 3)."""
        focal = self.focal_share * max(self.width, self.height * 4 / 3)
        centre_x, centre_y = (self.width - 1) / 2, (self.height - 1) / 2
        return np.array([[focal, 0, centre_x], [0, focal, centre_y], [0, 0, 1.0]])


class CameraCar:
    """Drives on the left of the street, never backwards, with a little weaving and bouncing."""

    def __init__(self, street: Street, rng: np.random.Generator) -> None:
        self.street = street
        self.lane_centre = -street.lane / 2 + float(rng.uniform(-0.2, 0.2))
        self.camera_height = float(rng.uniform(1.2, 1.55))
        self.focal_share = float(rng.uniform(0.95, 1.2))
        self._tilt = float(rng.normal(0.0, 0.012))
        self._surge = float(rng.uniform(0, 0.35))  # share of the speed that comes and goes
        self._phase = rng.uniform(0, 2 * np.pi, 6)
        self._rhythm = rng.uniform(0.7, 1.3, 6) * np.array([0.25, 0.5, 5.0, 8.5, 4.1, 7.3])

    def station(self, time: float) -> float:
        """Metres driven along the street `time` seconds after the first frame (before it: negative)."""
        rate, phase = self._rhythm[0], self._phase[0]
        wave = (np.sin(rate * time + phase) - np.sin(phase)) / rate
        return float(self.street.speed * (time + self._surge * wave))

    def pose(self, time: float) -> Pose:
        """Where the camera is."""
        moving = min(self.street.speed / 4, 1.0)
        wave = np.sin(self._rhythm * time + self._phase)
        station = self.station(time)
        aside = self.lane_centre + 0.25 * moving * wave[1]
        steer = 0.25 * moving * self._rhythm[1] * np.cos(self._rhythm[1] * time + self._phase[1])
        yaw = self.street.heading(station) + steer / max(self.street.speed, 4.0)
        pitch = self._tilt + moving * (0.0016 * wave[2] + 0.0008 * wave[3])
        roll = moving * (0.0025 * wave[4] + 0.001 * wave[5])
        lift = self.camera_height + moving * 0.012 * wave[3]
        return Pose(rotation(yaw, pitch, roll), self.street.place(station, aside, lift))
