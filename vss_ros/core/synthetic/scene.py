"""The scene: flat textured surfaces, each fixed to a body, and the bodies that move.

A surface is the parallelogram `origin + u * right + v * down` with u, v in 0..1, in the coordinates of
its body. Body 0 is the world itself. Everything but ground and sky is made of surfaces, so one 3 x 3
matrix per surface and frame says where each texel is seen, how far away, and how it moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vss_ros.core.synthetic.camera import Pose
from vss_ros.core.synthetic.texture import Texture

WORLD = 0
SHADOW = 254  # label of a surface that only darkens the ground: it never enters mask or depth
Motion = Callable[[float], Pose]


class Scene:
    """Collects surfaces and bodies; `freeze` once, then ask for their placement at any time."""

    def __init__(self) -> None:
        self.textures: list[Texture] = []
        self._corners: list[np.ndarray] = []
        self._labels: list[int] = []
        self._tints: list[Sequence[float]] = []
        self._bodies: list[int] = []
        self._closed: list[bool] = []
        self._motions: list[Motion] = []

    def body(self, motion: Motion) -> int:
        """Add something that moves: `motion` maps seconds to its pose. Returns its number."""
        self._motions.append(motion)
        return len(self._motions)

    def add(
        self,
        texture: Texture,
        label: int,
        origin: np.ndarray,
        right: np.ndarray,
        down: np.ndarray,
        body: int = WORLD,
        tint: Sequence[float] = (1, 1, 1),
        closed: bool = False,
    ) -> None:
        """Add a surface.

        Args:
            texture: its picture; u runs along the columns, v along the rows.
            label: class id of all its pixels, or SHADOW.
            origin, right, down: (3,), metres, in the coordinates of `body`.
            tint: factor on blue, green, red.
            closed: it bounds a solid and shows only the side where right x down points away from
                the eye; otherwise it is seen from both sides.
        """
        self.textures.append(texture)
        self._labels.append(label)
        self._corners.append(np.stack([right, down, origin], axis=1).astype(float))
        self._tints.append(tint)
        self._bodies.append(body)
        self._closed.append(closed)

    def freeze(self) -> None:
        """Turn the lists into arrays; nothing can be added after."""
        self.labels = np.array(self._labels, np.uint8)
        self.tints = np.array(self._tints, np.float32)
        self.closed = np.array(self._closed)
        self.bodies = np.array(self._bodies)
        self._local = np.array(self._corners).reshape(-1, 3, 3)
        self._moving = np.flatnonzero(self.bodies != WORLD)
        self.texture_sizes = np.array([(t.height, t.width) for t in self.textures]).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.textures)

    def placed(self, time: float) -> np.ndarray:
        """World geometry at `time`: (n, 3, 3), the columns right, down, origin of each surface."""
        poses = [motion(time) for motion in self._motions]
        if not poses:
            return self._local
        turns = np.array([pose.rotation for pose in poses])[self.bodies[self._moving] - 1]
        moves = np.array([pose.position for pose in poses])[self.bodies[self._moving] - 1]
        world = self._local.copy()
        world[self._moving] = turns @ self._local[self._moving]
        world[self._moving, :, 2] += moves
        return world
