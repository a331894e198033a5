"""Trees, bare and in leaf, and hedges."""

from __future__ import annotations

import cv2
import numpy as np

from vss_ros.core.synthetic.texture import Texture, blank, noise

LEAVES = ([48, 84, 70], [40, 66, 56], [58, 98, 88], [62, 88, 98], [38, 58, 46])


def tree_picture(rng: np.random.Generator, bare: bool) -> Texture:
    """A tree standing on the lower edge of the picture, as high as it is wide."""
    size = 320
    canvas = blank(size, size)
    bark = np.array([48, 54, 60]) * rng.uniform(0.6, 1.3)
    tips: list[tuple[float, float]] = []
    _branch(rng, canvas, size / 2, size, -np.pi / 2, size * 0.26, size * 0.05, bark, tips, 0)
    wood = canvas[:, :, 3] > 0
    reach = np.zeros((size, size), np.uint8)
    for x, y in tips:
        radius = int(size * rng.uniform(0.03, 0.06 if bare else 0.1))
        cv2.circle(reach, (int(x), int(y)), radius, 255, -1)
    soft = cv2.GaussianBlur(reach, (0, 0), size * 0.012).astype(np.float32) / 255
    rough = noise(rng, size, size, [26, 12, 6, 3])
    if bare:
        twigs = np.clip(soft * 1.2 + 0.5 * rough - 0.25, 0, 0.85) * 255
        crown = np.full((size, size, 3), bark * 1.15, np.float32) * (1 + 0.25 * rough[:, :, None])
        alpha = twigs * (rng.random((size, size)) < 0.85)
    else:
        green = np.array(LEAVES[rng.integers(len(LEAVES))], np.float32) * rng.uniform(0.7, 1.25)
        lump = noise(rng, size, size, [48, 20, 9, 4])
        height = np.linspace(1.2, 0.7, size, dtype=np.float32)[:, None]
        crown = green * ((1 + 0.5 * lump) * height)[:, :, None]
        alpha = np.clip((soft * (1 + 0.5 * rough) - 0.42) * 5, 0, 1) * 255
    picture = np.dstack([crown, alpha])
    if bare:
        picture[wood] = canvas[wood]
    else:
        hidden = wood & (alpha < 128)
        picture[hidden] = canvas[hidden]
    return Texture(picture)


def _branch(rng, canvas, x, y, angle, length, width, colour, tips, depth) -> None:
    """Draw a branch and those that grow from it; remember where the thin ones end."""
    x1, y1 = x + length * np.cos(angle), y + length * np.sin(angle)
    start, end = (round(x * 16), round(y * 16)), (round(x1 * 16), round(y1 * 16))
    shade = (*(colour * rng.uniform(0.8, 1.15)), 255)
    cv2.line(canvas, start, end, shade, max(round(width), 1), cv2.LINE_8, 4)
    if depth >= 3:
        tips.append((x1, y1))
        tips.append(((x + x1) / 2, (y + y1) / 2))
    if depth == 6 or width < 0.9:
        return
    for turn in (-1, 1, 0)[: 3 if depth in (1, 2) else 2]:
        bend = turn * rng.uniform(0.25, 0.6) + rng.normal(0, 0.1)
        lift = -0.12 * np.cos(angle + bend) * np.sign(np.cos(angle + bend))
        direction = angle + bend + lift * np.sign(np.cos(angle + bend))
        _branch(rng, canvas, x1, y1, direction, length * rng.uniform(0.62, 0.84), width * 0.62, colour,
                tips, depth + 1)  # fmt: skip


def hedge_picture(rng: np.random.Generator) -> Texture:
    """A stretch of hedge or bushes, four times as wide as high, with a ragged upper edge."""
    h, w = 96, 384
    green = np.array(LEAVES[rng.integers(len(LEAVES))], np.float32) * rng.uniform(0.6, 1.05)
    lump = noise(rng, h, w, [30, 14, 7, 3])
    height = np.linspace(1.25, 0.55, h, dtype=np.float32)[:, None]
    edge = 0.16 + 0.12 * noise(rng, 4, w, [60, 25, 10, 5])[2]
    alpha = np.clip((np.linspace(0, 1, h)[:, None] - edge) * 40 + 6 * lump, 0, 1) * 255
    return Texture(np.dstack([green * ((1 + 0.45 * lump) * height)[:, :, None], alpha]))
