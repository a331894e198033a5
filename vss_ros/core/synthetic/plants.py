"""Trees, bare and in leaf, and hedges."""

from __future__ import annotations

import cv2
import numpy as np

from vss_ros.core.synthetic.texture import Texture, blank, noise

LEAVES = ([48, 84, 70], [40, 66, 56], [58, 98, 88], [62, 88, 98], [38, 58, 46])


SIZE = 320  # texels: height and width of a tree's picture
Branch = tuple[float, float, float, float, float, int]  # x0, y0, x1, y1, width, order


def tree_picture(rng: np.random.Generator, bare: bool) -> Texture:
    """A tree standing on the lower edge of the picture, which it fills."""
    branches: list[Branch] = []
    _grow(rng, branches, 0.0, 0.0, -np.pi / 2, 1.0, 0.19, 0)
    margin = SIZE * (0.04 if bare else 0.1)  # room for twigs and leaves
    ends = np.array([branch[:4] for branch in branches]).reshape(-1, 2)
    low, high = ends.min(0), ends.max(0)
    scale = min((SIZE - margin) / (high[1] - low[1]), (SIZE - 2 * margin) / (high[0] - low[0]))
    middle = (low[0] + high[0]) / 2
    canvas, reach = blank(SIZE, SIZE), np.zeros((SIZE, SIZE), np.uint8)
    bark = np.array([50, 55, 60]) * rng.uniform(0.5, 1.4)
    for x0, y0, x1, y1, width, order in branches:
        x = [(value - middle) * scale + SIZE / 2 for value in (x0, x1)]
        y = [value * scale + SIZE for value in (y0, y1)]
        start, end = (round(x[0] * 16), round(y[0] * 16)), (round(x[1] * 16), round(y[1] * 16))
        shade = (*(bark * rng.uniform(0.75, 1.2)), 255)
        cv2.line(canvas, start, end, shade, max(round(width * scale), 1), cv2.LINE_8, 4)
        if order >= 3:
            for at in ((x[1], y[1]), ((x[0] + x[1]) / 2, (y[0] + y[1]) / 2)):
                radius = rng.uniform(0.02, 0.045) if bare else rng.uniform(0.04, 0.1)
                cv2.circle(reach, (int(at[0]), int(at[1])), int(SIZE * radius), 255, -1)
    crown = _twigs(rng, reach, bark) if bare else _leaves(rng, reach)
    wood = (canvas[:, :, 3] > 0) & (bare | (crown[:, :, 3] < 128))
    crown[wood] = canvas[wood]
    return Texture(crown)


def _grow(rng: np.random.Generator, branches: list[Branch], x: float, y: float, angle: float,
          length: float, width: float, order: int) -> None:  # fmt: skip
    """Add a branch that starts at (x, y), y pointing down, and all that grows from it."""
    x1, y1 = x + length * np.cos(angle), y + length * np.sin(angle)
    branches.append((x, y, x1, y1, width, order))
    if order == 6:
        return
    for turn in (-1, 1, 0)[: 3 if order in (1, 2) else 2]:
        bend = angle + turn * rng.uniform(0.25, 0.6) + rng.normal(0, 0.1)
        _grow(rng, branches, x1, y1, bend - 0.12 * np.cos(bend), length * rng.uniform(0.62, 0.84),
              width * 0.62, order + 1)  # fmt: skip


def _twigs(rng: np.random.Generator, reach: np.ndarray, bark: np.ndarray) -> np.ndarray:
    """The haze of thin twigs around the branches of a bare tree, (h, w, 4)."""
    soft = cv2.GaussianBlur(reach, (0, 0), SIZE * 0.012).astype(np.float32) / 255
    rough = noise(rng, SIZE, SIZE, [26, 12, 6, 3])
    alpha = soft * np.clip(0.62 + 0.5 * rough, 0, 0.9) * (rng.random((SIZE, SIZE)) < 0.85)
    colour = np.full((SIZE, SIZE, 3), bark * 1.2) * (1 + 0.25 * rough[:, :, None])
    return np.dstack([colour, alpha * 255])


def _leaves(rng: np.random.Generator, reach: np.ndarray) -> np.ndarray:
    """The crown of a tree in leaf: clumps that are light above and dark below, (h, w, 4)."""
    soft = cv2.GaussianBlur(reach, (0, 0), SIZE * 0.014).astype(np.float32) / 255
    rough = noise(rng, SIZE, SIZE, [30, 14, 6, 3])
    clumps = noise(rng, SIZE, SIZE, [40, 22, 12, 6])
    lit = np.clip(1 + 0.5 * clumps + 2.2 * (clumps - np.roll(clumps, -5, axis=0)), 0.4, 1.9)
    leaf = rng.normal(1, 0.3, (SIZE, SIZE)).astype(np.float32)
    green = np.array(LEAVES[rng.integers(len(LEAVES))], np.float32) * rng.uniform(0.8, 1.4)
    colour = green * (lit * leaf * np.linspace(1.15, 0.75, SIZE)[:, None])[:, :, None]
    alpha = np.clip((soft * (1 + 0.6 * rough) - 0.42) * 5, 0, 1)
    return np.dstack([np.clip(colour, 0, 255), alpha * 255])


def hedge_picture(rng: np.random.Generator) -> Texture:
    """A stretch of hedge or bushes, four times as wide as high, with a ragged upper edge."""
    h, w = 96, 384
    green = np.array(LEAVES[rng.integers(len(LEAVES))], np.float32) * rng.uniform(0.6, 1.05)
    lump = noise(rng, h, w, [30, 14, 7, 3])
    height = np.linspace(1.25, 0.55, h, dtype=np.float32)[:, None]
    edge = 0.16 + 0.12 * noise(rng, 4, w, [60, 25, 10, 5])[2]
    alpha = np.clip((np.linspace(0, 1, h)[:, None] - edge) * 40 + 6 * lump, 0, 1) * 255
    return Texture(np.dstack([green * (np.clip(1 + 0.4 * lump, 0.35, 1.7) * height)[:, :, None], alpha]))
