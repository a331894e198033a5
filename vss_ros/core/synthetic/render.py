"""Draw the surfaces of a scene: far to near, soft edges in colour, hard edges in depth and numbers.

For a surface with placement [right, down, origin] in camera coordinates, M = lens @ placement maps
(u, v, 1) to depth * (x, y, 1). So inverse(M) @ (x, y, 1) = (u, v, 1) / depth: one 3 x 3 matrix gives the
texture coordinates and, in its last row, the inverse depth of every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vss_ros.core.synthetic.light import Light
from vss_ros.core.synthetic.scene import SHADOW, Scene

SKY, GROUND, FIRST_SURFACE = 0, 1, 2  # numbers in `Picture.surface`
NEAR = 0.35  # metres: nothing closer than this is drawn
FAR = 190.0
SMALLEST = 0.6  # pixels: surfaces whose picture is smaller in both directions are left out


@dataclass
class Picture:
    """A frame on its way through the renderer, before lens and noise."""

    colour: np.ndarray  # (H, W, 4) uint8; the last channel is not used
    labels: np.ndarray  # (H, W) uint8 class ids
    inverse_depth: np.ndarray  # (H, W) float32, 1/m, 0 for the sky
    surface: np.ndarray  # (H, W) int32: SKY, GROUND or FIRST_SURFACE + number in the scene
    matrices: np.ndarray  # (2 + n, 3, 3): (u, v, 1) -> depth * (x, y, 1) of each surface number


def draw_surfaces(
    picture: Picture,
    scene: Scene,
    view: np.ndarray,
    eye: np.ndarray,
    placed: np.ndarray,
    lens: np.ndarray,
    light: Light,
) -> None:
    """Draw all surfaces of `scene` into `picture`, which already shows ground and sky.

    Args:
        view: world -> camera rotation (3, 3); eye: camera position (3,).
        placed: `scene.placed(time)`, (n, 3, 3).
        lens: `Lens.matrix`.
    """
    local = placed.copy()
    local[:, :, 2] -= eye
    local = view @ local
    matrices = lens @ local
    picture.matrices[FIRST_SURFACE:] = matrices
    order, bounds = _visible(scene, local, matrices, picture.surface.shape)
    if not len(order):
        return
    inverses = np.linalg.inv(matrices[order])
    levels = _levels(scene, matrices[order], order)
    gains = light.gains(placed[order], local[order], scene.tints[order])
    hazes = light.haze_at(np.maximum((local[order] @ [0.5, 0.5, 1.0])[:, 2], NEAR))
    for i, number in enumerate(order):
        texture = scene.textures[number].level(*levels[i])
        shade = np.zeros((4, 4), np.float32)
        shade[[0, 1, 2], [0, 1, 2]] = gains[i] * (1 - hazes[i])
        shade[:3, 3] = light.haze_colour / 255 * hazes[i]
        shade[3, 3] = 1
        is_shadow = scene.labels[number] == SHADOW
        _draw(picture, texture, inverses[i], bounds[i], shade, None if is_shadow else number + FIRST_SURFACE)
    drawn = picture.surface >= FIRST_SURFACE
    picture.labels[drawn] = scene.labels[picture.surface[drawn] - FIRST_SURFACE]


def _visible(
    scene: Scene, local: np.ndarray, matrices: np.ndarray, size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the surfaces in view, shadows first, then far to near, and their boxes x0 y0 x1 y1."""
    height, width = size
    uv = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], float).T
    corners = matrices @ uv  # (n, 3, 4): depth * (x, y, 1)
    depth = corners[:, 2]
    side = np.linalg.det(local)  # zero edge on, its sign tells the side we see
    keep = (depth.max(1) > NEAR) & (depth.min(1) < FAR) & (np.abs(side) > 1e-7)
    keep &= ~scene.closed | (side > 0)
    pixels = corners[:, :2] / np.maximum(depth, 1e-6)[:, None]
    low, high = pixels.min(2), pixels.max(2)
    for i in np.flatnonzero(keep & (depth.min(1) < NEAR)):
        low[i], high[i] = _near_clipped_box(corners[i])
    keep &= (high > -1).all(1) & (low[:, 0] < width) & (low[:, 1] < height)
    keep &= (high - low).max(1) > SMALLEST
    order = np.flatnonzero(keep)
    distance = depth[order].mean(1)
    order = order[np.lexsort((order, -distance, scene.labels[order] != SHADOW))]
    low = np.clip(np.floor(low[order]), 0, [width, height])
    high = np.clip(np.ceil(high[order]) + 1, 0, [width, height])
    bounds = np.concatenate([low, high], axis=1).astype(int)
    some = (bounds[:, 2] > bounds[:, 0]) & (bounds[:, 3] > bounds[:, 1])
    return order[some], bounds[some]


def _near_clipped_box(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel box of the part of one quadrilateral (3, 4) that lies beyond the near plane."""
    points = []
    for a, b in zip(corners.T, np.roll(corners.T, -1, axis=0), strict=True):
        if a[2] >= NEAR:
            points.append(a[:2] / a[2])
        if (a[2] - NEAR) * (b[2] - NEAR) < 0:
            cut = a + (b - a) * (NEAR - a[2]) / (b[2] - a[2])
            points.append(cut[:2] / NEAR)
    return np.min(points, axis=0), np.max(points, axis=0)


def _levels(scene: Scene, matrices: np.ndarray, order: np.ndarray) -> list[tuple[int, int]]:
    """How often to halve each texture (down, across) so that a texel is about a pixel at its middle."""
    middle = matrices @ [0.5, 0.5, 1.0]
    depth = np.maximum(middle[:, 2:], NEAR)
    slope = matrices[:, :2, :2] - (middle[:, :2] / depth)[:, :, None] * matrices[:, 2:, :2]
    pixels = np.linalg.norm(slope / depth[:, :, None], axis=1)[:, ::-1]  # per unit of v, of u
    sizes = scene.texture_sizes[order]
    halvings = np.rint(np.log2(sizes / np.maximum(pixels, 1e-3)) - 0.2)
    return [tuple(pair) for pair in np.clip(halvings, 0, np.log2(sizes)).astype(int)]


def _draw(
    picture: Picture,
    texture: np.ndarray,
    inverse: np.ndarray,
    bounds: np.ndarray,
    shade: np.ndarray,
    number: int | None,
) -> None:
    """Draw one surface into its box; `number` None darkens the colours only."""
    x0, y0, x1, y1 = bounds
    rows, columns = texture.shape[:2]
    shifted = inverse.copy()
    shifted[:, 2] += inverse[:, 0] * x0 + inverse[:, 1] * y0  # now takes pixels of the box
    to_texel = np.array([[columns, 0, -0.5], [0, rows, -0.5], [0, 0, 1]]) @ shifted
    patch = cv2.warpPerspective(
        texture, to_texel, (int(x1 - x0), int(y1 - y0)),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0),
    )  # fmt: skip
    box = np.s_[y0:y1, x0:x1]
    a, b, c = shifted[2].astype(np.float32)
    near = a * np.arange(x1 - x0, dtype=np.float32) + (b * np.arange(y1 - y0, dtype=np.float32) + c)[:, None]
    front = (near < 1 / NEAR) & (near > 0)
    if number is not None:
        front &= near > picture.inverse_depth[box]
    patch = cv2.transform(patch, shade)
    patch = cv2.bitwise_and(patch, patch, mask=front.view(np.uint8))
    alpha = np.ascontiguousarray(patch[:, :, 3])
    behind = cv2.bitwise_not(cv2.merge([alpha] * 4))
    colour = picture.colour[box]
    colour[:] = cv2.add(patch, cv2.multiply(colour, behind, scale=1 / 255))
    if number is not None:
        solid = alpha >= 128
        np.copyto(picture.inverse_depth[box], near, where=solid)
        np.copyto(picture.surface[box], number, where=solid)
