"""Textures: premultiplied BGRA pictures with their smaller copies, and the brushes that paint them.

Colours are premultiplied by alpha, so that interpolating and shrinking never pull in the colour of
transparent texels and the edge of a cut-out blends with whatever stands behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Colour = Sequence[float] | np.ndarray  # B, G, R in 0..255


class Texture:
    """A picture to hang into the world.

    Args:
        picture: (h, w, 3) BGR, or (h, w, 4) BGRA that is not yet premultiplied; uint8 or float 0..255.
    """

    def __init__(self, picture: np.ndarray) -> None:
        texels = np.clip(picture, 0, 255)
        if texels.shape[2] == 3:
            texels = cv2.cvtColor(texels.astype(np.uint8), cv2.COLOR_BGR2BGRA)
        else:
            alpha = texels[:, :, 3:].astype(np.float32)
            texels = np.concatenate([texels[:, :, :3] * (alpha / 255), alpha], axis=2)
        self.height, self.width = texels.shape[:2]
        self._levels = {(0, 0): np.rint(texels).astype(np.uint8)}

    def level(self, down: int, across: int) -> np.ndarray:
        """(h, w, 4) uint8, the height halved `down` times and the width `across` times.

        The two are apart because a wall seen along its length shrinks in one direction only.
        """
        size = max(self.width >> across, 1), max(self.height >> down, 1)
        key = down, across
        if key not in self._levels:
            self._levels[key] = cv2.resize(self._levels[0, 0], size, interpolation=cv2.INTER_AREA)
        return self._levels[key]


def blank(height: int, width: int) -> np.ndarray:
    """A transparent canvas, (height, width, 4) uint8."""
    return np.zeros((height, width, 4), np.uint8)


def filled(height: int, width: int, colour: Colour) -> np.ndarray:
    """A canvas of one colour, (height, width, 3) float32."""
    return np.full((height, width, 3), colour, np.float32)


def noise(rng: np.random.Generator, height: int, width: int, cells: Sequence[float]) -> np.ndarray:
    """Smooth noise of about -1..1, (height, width) float32: a sum of octaves, each half as strong.

    Args:
        cells: size of the blobs of each octave, in texels. The picture continues across its own edges.
    """
    total = np.zeros((height, width), np.float32)
    for octave, cell in enumerate(cells):
        rows, columns = max(round(height / cell), 1), max(round(width / cell), 1)
        grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        grid = np.pad(grid, 2, mode='wrap')
        down, across = height / rows, width / columns
        size = round(across * (columns + 4)), round(down * (rows + 4))
        layer = cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
        top, left = round(2 * down), round(2 * across)
        layer = layer[top : top + height, left : left + width]
        total += layer * 0.5**octave
    return total


def polygon(canvas: np.ndarray, points: Sequence[Sequence[float]], colour: Colour) -> None:
    """Fill a polygon of (x, y) points with smooth edges."""
    _paint(canvas, points, colour, None)


def line(canvas: np.ndarray, points: Sequence[Sequence[float]], colour: Colour, thickness: float) -> None:
    """Draw a line through (x, y) points."""
    _paint(canvas, points, colour, max(round(thickness), 1))


def ellipse(canvas: np.ndarray, centre: Sequence[float], radii: Sequence[float], colour: Colour) -> None:
    """Fill an upright ellipse."""
    angle = np.linspace(0, 2 * np.pi, 40)
    x, y = centre[0] + radii[0] * np.cos(angle), centre[1] + radii[1] * np.sin(angle)
    polygon(canvas, np.stack([x, y], 1).tolist(), colour)


def box(canvas: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    """Fill an upright rectangle on whole texels."""
    rows, columns = slice(max(round(y0), 0), round(y1)), slice(max(round(x0), 0), round(x1))
    canvas[rows, columns, :3] = np.clip(colour, 0, 255)
    if canvas.shape[2] == 4:
        canvas[rows, columns, 3] = 255


def _paint(
    canvas: np.ndarray, points: Sequence[Sequence[float]], colour: Colour, thickness: int | None
) -> None:
    """Draw a line, or fill a polygon where `thickness` is None, inside the box around the points."""
    corners = np.asarray(points, float)
    reach = (thickness or 0) + 2
    height, width = canvas.shape[:2]
    x0, y0 = np.clip(np.floor(corners.min(0)) - reach, 0, [width, height]).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(0)) + reach, 0, [width, height]).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    fixed = np.rint((corners - [x0, y0]) * 16).astype(np.int32)  # 4 bits of fraction
    if thickness is None:
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, 4)
    else:
        cv2.polylines(mask, [fixed], False, 255, thickness, cv2.LINE_AA, 4)
    part = canvas[y0:y1, x0:x1]
    share = mask[:, :, None].astype(np.float32) / 255
    brush = np.asarray(colour[:3], np.float32)
    old = part.astype(np.float32)
    if canvas.shape[2] == 4:
        alpha = np.maximum(old[:, :, 3:], share * 255)
        # On transparent ground the colour is the brush's own: only alpha carries the soft edge.
        share = np.where(old[:, :, 3:] > 0, share, share > 0)
        mixed = np.concatenate([old[:, :, :3] * (1 - share) + brush * share, alpha], axis=2)
    else:
        mixed = old * (1 - share) + brush * share
    part[:] = np.clip(mixed, 0, 255).astype(canvas.dtype)
