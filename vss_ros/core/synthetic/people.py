"""Pedestrians and cyclists: cut-out figures whose trunk is one surface and whose legs swing.

Own axes of a figure: x right, y down with the ground at 0; the figure stands in the plane z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vss_ros.core.synthetic.texture import Texture, blank, box, ellipse, line, polygon

PEDESTRIAN, BICYCLIST = 9, 10  # CamVid-11
CLOTHES = ([38, 36, 36], [60, 48, 44], [74, 50, 38], [44, 44, 80], [60, 66, 70], [36, 46, 42],
           [120, 116, 110], [50, 60, 120], [130, 80, 50], [30, 28, 30])  # fmt: skip
TROUSERS = ([60, 48, 40], [40, 38, 38], [86, 66, 50], [70, 78, 84], [30, 30, 32])


@dataclass(frozen=True)
class Figure:
    """A person: pictures of trunk and of one leg, and measures in metres."""

    trunk: Texture
    leg: Texture
    wheels: Texture | None  # the bicycle, for cyclists
    height: float
    hip: float  # height of the hip
    sideways: bool  # seen from the side, and moving to the right in own axes
    label: int


def draw_person(rng: np.random.Generator, sideways: bool) -> Figure:
    """Design a pedestrian."""
    trunk = blank(95, 64)
    coat = np.array(CLOTHES[rng.integers(len(CLOTHES))]) * rng.uniform(0.5, 1.1)
    half = 13 if sideways else 22
    _trunk(rng, trunk, coat, half)
    if rng.random() < 0.35:
        bag = np.array(CLOTHES[rng.integers(len(CLOTHES))]) * 0.9
        box(trunk, 32 - half - 6, 52, 32 - half + 8, 76, bag)
    height = float(rng.uniform(1.55, 1.88) if rng.random() < 0.88 else rng.uniform(1.1, 1.4))
    return Figure(Texture(trunk), _leg(rng), None, height, 0.5 * height, sideways, PEDESTRIAN)


def draw_cyclist(rng: np.random.Generator, sideways: bool) -> Figure:
    """Design a cyclist on a bicycle, from behind or from the side."""
    trunk = blank(95, 96 if sideways else 64)
    coat = np.array([*CLOTHES, [60, 220, 210], [40, 60, 190]][rng.integers(len(CLOTHES) + 2)]) * 1.05
    if sideways:
        polygon(trunk, [[26, 92], [46, 92], [70, 36], [58, 24], [44, 30]], coat)
        line(trunk, [[62, 36], [80, 66], [90, 70]], coat * 0.8, 8)
        _head(rng, trunk, 68, 14)
        frame = blank(70, 180)
        for x in (36, 144):
            ellipse(frame, [x, 36], [34, 34], [28, 28, 28])
            ellipse(frame, [x, 36], [29, 29], [0, 0, 0])
            hole = np.hypot(np.arange(180) - x, np.arange(70)[:, None] - 36) < 29
            frame[hole] = 0
            line(frame, [[x - 29, 36], [x + 29, 36]], [120, 120, 120], 2)
            line(frame, [[x, 7], [x, 65]], [120, 120, 120], 2)
        paint = np.array(rng.uniform(20, 170, 3))
        line(frame, [[36, 36], [66, 4], [128, 6], [144, 36]], paint, 5)
        line(frame, [[66, 4], [82, 44], [128, 6]], paint, 5)
        line(frame, [[36, 36], [82, 44]], paint, 4)
    else:
        _trunk(rng, trunk, coat, 21)
        frame = blank(70, 24)
        ellipse(frame, [12, 36], [3.5, 34], [26, 26, 26])
        box(frame, 7, 4, 17, 12, [40, 36, 150])
    return Figure(Texture(trunk), _leg(rng), Texture(frame), 1.75, 0.86, sideways, BICYCLIST)


def _trunk(rng: np.random.Generator, canvas: np.ndarray, coat: np.ndarray, half: float) -> None:
    """Shoulders, arms and head, upright."""
    outline = [[32 - half * 0.85, 94], [32 - half, 34], [32 - half * 0.6, 25], [32 + half * 0.6, 25],
               [32 + half, 34], [32 + half * 0.85, 94]]  # fmt: skip
    polygon(canvas, outline, coat)
    polygon(canvas, [[32 + half * 0.3, 30], [32 + half, 36], [32 + half * 0.85, 94], [32 + 2, 94]],
            coat * 0.8)  # fmt: skip
    for side in (-1, 1):
        x = 32 + side * (half + 1)
        line(canvas, [[x - side * 3, 36], [x + side * 2, 62], [x, 82]], coat * (0.9 - 0.1 * side), 8)
        ellipse(canvas, [x, 85], [4, 5], [120, 150, 190])
    _head(rng, canvas, 32, 13)


def _head(rng: np.random.Generator, canvas: np.ndarray, x: float, y: float) -> None:
    skin = np.array([125, 155, 200]) * rng.uniform(0.35, 1.05)
    hair = np.array([[30, 34, 40], [40, 60, 90], [90, 130, 160], [150, 150, 150]][rng.integers(4)])
    box(canvas, x - 4, y + 7, x + 5, y + 16, skin * 0.85)
    ellipse(canvas, [x, y], [9.5, 12], skin)
    if rng.random() < 0.45:  # seen from behind
        ellipse(canvas, [x, y - 1], [9.5, 11], hair)
    polygon(canvas, [[x - 10, y + 2], [x - 9, y - 8], [x, y - 13], [x + 9, y - 8], [x + 10, y + 1],
                     [x + 4, y - 5], [x - 5, y - 5]], hair)  # fmt: skip


def _leg(rng: np.random.Generator) -> Texture:
    canvas = blank(90, 26)
    cloth = np.array(TROUSERS[rng.integers(len(TROUSERS))]) * rng.uniform(0.5, 1.1)
    polygon(canvas, [[3, 0], [23, 0], [20, 46], [19, 82], [7, 82], [6, 46]], cloth)
    polygon(canvas, [[14, 0], [23, 0], [20, 46], [19, 82], [13, 82]], cloth * 0.8)
    polygon(canvas, [[6, 80], [19, 80], [25, 89], [6, 89]], [26, 26, 30])
    return Texture(canvas)
