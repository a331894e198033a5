"""Street furniture: lamp posts, bollards, traffic signs and lights, fences and railings."""

from __future__ import annotations

import numpy as np

from vss_ros.core.synthetic.texture import Texture, blank, box, ellipse, filled, line, noise, polygon

RED, BLUE, WHITE, BLACK = [45, 35, 190], [165, 85, 30], [228, 230, 230], [30, 28, 28]


def post_picture(rng: np.random.Generator) -> Texture:
    """A round post: darker towards both sides."""
    colour = [[118, 122, 120], [70, 74, 70], [150, 152, 150], [52, 56, 54]][rng.integers(4)]
    picture = filled(64, 8, np.array(colour) * rng.uniform(0.8, 1.2))
    return Texture(picture * np.array([0.45, 0.8, 1.2, 1.4, 1.2, 0.9, 0.6, 0.4])[:, None])


def lamp_picture(rng: np.random.Generator) -> Texture:
    """Arm and lamp of a lamp post, reaching to the right from the lower left corner."""
    canvas = blank(48, 160)
    grey = np.array([120, 122, 120]) * rng.uniform(0.7, 1.2)
    line(canvas, [[4, 48], [10, 26], [30, 16], [110, 12]], grey, 8)
    polygon(canvas, [[95, 6], [155, 8], [158, 18], [100, 22]], grey * 0.8)
    return Texture(canvas)


def sign_picture(rng: np.random.Generator) -> tuple[Texture, float, float]:
    """A traffic sign or a plate: its picture, width and height in metres."""
    kind = rng.choice(['ring', 'triangle', 'blue', 'plate', 'direction'])
    canvas = blank(96, 96)
    if kind == 'ring':
        ellipse(canvas, [48, 48], [46, 46], RED)
        ellipse(canvas, [48, 48], [34, 34], WHITE)
        _strokes(rng, canvas, 34, 34, 62, 62, BLACK)
        return Texture(canvas), 0.75, 0.75
    if kind == 'triangle':
        polygon(canvas, [[48, 4], [94, 88], [2, 88]], RED)
        polygon(canvas, [[48, 24], [77, 78], [19, 78]], WHITE)
        _strokes(rng, canvas, 42, 50, 54, 74, BLACK)
        return Texture(canvas), 0.9, 0.85
    if kind == 'blue':
        ellipse(canvas, [48, 48], [46, 46], WHITE)
        ellipse(canvas, [48, 48], [42, 42], BLUE)
        polygon(canvas, [[44, 20], [52, 20], [52, 54], [66, 54], [48, 78], [30, 54], [44, 54]], WHITE)
        return Texture(canvas), 0.7, 0.7
    ground = [WHITE, BLUE, [60, 100, 30], [30, 170, 215], BLACK][rng.integers(5)]
    ink = BLACK if sum(ground) > 400 else WHITE
    canvas[:] = [*np.array(ink) * 0.9, 255]
    box(canvas, 3, 3, 93, 93, ground)
    for y in np.arange(14, 80, rng.uniform(18, 30)):
        _strokes(rng, canvas, 10, y, 10 + rng.uniform(40, 76), y + 10, ink)
    if kind == 'plate':
        return Texture(canvas), float(rng.uniform(0.5, 0.9)), float(rng.uniform(0.6, 1.2))
    return Texture(canvas), float(rng.uniform(1.15, 1.8)), float(rng.uniform(0.7, 1.2))


def _strokes(rng, canvas, x0, y0, x1, y1, ink) -> None:
    """Something that reads as letters from afar."""
    x = x0
    while x < x1 - 3:
        wide = rng.uniform(3, 8)
        box(canvas, x, y0, min(x + wide, x1), y1, ink)
        x += wide + 3


def light_picture(rng: np.random.Generator) -> Texture:
    """A traffic light head, one lamp lit."""
    canvas = blank(96, 36)
    box(canvas, 2, 2, 34, 94, [26, 28, 26])
    lit = int(rng.choice([0, 2]))
    for lamp, colour in enumerate(([40, 40, 235], [30, 160, 235], [130, 220, 60])):
        shade = colour if lamp == lit else np.array(colour) * 0.2
        ellipse(canvas, [18, 18 + 30 * lamp], [11, 11], shade)
    return Texture(canvas)


def fence_picture(rng: np.random.Generator) -> Texture:
    """A stretch of fence, four times as wide as high: boards, railings, mesh or a low wall."""
    kind = rng.choice(['boards', 'railings', 'wall', 'pickets'], p=[0.3, 0.35, 0.2, 0.15])
    h, w = 64, 256
    if kind == 'wall':
        base = np.array([[80, 110, 135], [95, 120, 130], [110, 118, 122]][rng.integers(3)])
        picture = filled(h, w, base * rng.uniform(0.5, 1.0))
        picture *= 1 + 0.1 * noise(rng, h, w, [16, 5, 2])[:, :, None]
        picture[np.arange(h) % 8 == 7] *= 0.8
        picture[:6] = picture[:6] * 1.2
        return Texture(picture)
    if kind == 'boards':
        picture = filled(h, w, np.array([62, 80, 98]) * rng.uniform(0.5, 1.1))
        picture *= np.repeat(rng.normal(1, 0.09, w // 8), 8)[None, :, None]
        picture[:, np.arange(w) % 8 == 7] *= 0.6
        picture *= 1 + 0.06 * noise(rng, h, w, [20, 6])[:, :, None]
        return Texture(picture)
    canvas = blank(h, w)
    dark = [[30, 30, 30], [130, 132, 130], [42, 60, 34]][rng.integers(3)] if kind == 'railings' else WHITE
    step, wide = (8, 4) if kind == 'railings' else (16, 11)
    for x in range(0, w, step):
        box(canvas, x, 4, x + wide, h, np.array(dark) * rng.uniform(0.85, 1.1))
    for y in (8, h - 14):
        box(canvas, 0, y, w, y + 5, dark)
    return Texture(canvas)
