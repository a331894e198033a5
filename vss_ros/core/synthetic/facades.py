"""House fronts, plain walls and roofs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vss_ros.core.synthetic.texture import Texture, box, filled, noise, polygon

TEXELS = 36  # per metre
FLOOR = 2.9  # metres

BRICKS = ([88, 128, 150], [70, 96, 140], [62, 78, 118], [105, 140, 158], [82, 104, 122])
RENDERS = ([205, 212, 216], [180, 200, 212], [150, 160, 165], [190, 190, 186], [120, 132, 142])
ROOFS = ([72, 70, 72], [60, 72, 98], [82, 84, 84], [58, 64, 78])
GLOSS = ([120, 60, 30], [40, 40, 150], [60, 100, 40], [30, 30, 34], [170, 150, 60], [40, 110, 190],
         [210, 208, 204])  # fmt: skip


@dataclass
class House:
    """Everything needed to build one house: pictures and measures (metres)."""

    front: Texture
    wall: Texture
    gable: Texture  # the triangle under the roof, as high as the roof rises
    roof: Texture
    width: float
    height: float
    rise: float  # of the roof; 0 is flat


def draw_house(rng: np.random.Generator, town: float) -> House:
    """Design a house: a shop or a terrace in town, a small house outside, now and then an office."""
    shares = [0.45 * town, 0.3, 0.6 - 0.55 * town, 0.1 + 0.1 * town]
    kind = str(rng.choice(['shop', 'terrace', 'house', 'office'], p=shares))
    fewest, most = {'shop': (2, 4), 'terrace': (2, 3), 'house': (2, 2), 'office': (3, 5)}[kind]
    floors = int(rng.integers(fewest, most + 1))
    width = float(
        rng.uniform(*{'shop': (5, 9), 'terrace': (5, 8), 'house': (7, 11), 'office': (10, 16)}[kind])
    )
    height = float(floors * FLOOR + rng.uniform(0.3, 1.2))
    palette = BRICKS if rng.random() < 0.62 else RENDERS
    base = np.array(palette[rng.integers(len(palette))], np.float32) * rng.uniform(0.72, 1.08)
    wall = _masonry(rng, round(height * TEXELS), round(width * TEXELS), base, palette is BRICKS)
    side = _masonry(rng, 160, 160, base * 0.95, palette is BRICKS)
    _fenestrate(rng, wall, floors, kind)
    roof = np.array(ROOFS[rng.integers(len(ROOFS))], np.float32) * rng.uniform(0.8, 1.2)
    rise = 0.0 if kind == 'office' or (kind == 'shop' and rng.random() < 0.4) else rng.uniform(1.5, 3)
    return House(
        Texture(wall), Texture(side), _gable(side), Texture(_tiles(rng, roof)), width, height, float(rise)
    )


def _masonry(rng: np.random.Generator, h: int, w: int, base: np.ndarray, bricks: bool) -> np.ndarray:
    picture = filled(h, w, base)
    shade = 1 + 0.07 * noise(rng, h, w, [60, 20, 6])
    if bricks:
        rows = rng.normal(1, 0.06, (h // 3 + 1, w // 8 + 1)).astype(np.float32)
        r, c = np.arange(h)[:, None], np.arange(w)
        shade = shade * rows[r // 3, (c + (r // 3 % 2) * 4) % w // 8]
    shade = shade * np.linspace(1.06, 0.86, h, dtype=np.float32)[:, None]  # dirt gathers low down
    return picture * shade[:, :, None]


def _fenestrate(rng: np.random.Generator, wall: np.ndarray, floors: int, kind: str) -> None:
    """Windows, sills, cornice, and a shop or a door on the ground floor."""
    h, w = wall.shape[:2]
    t = TEXELS
    frame = np.array([215, 218, 220]) * rng.uniform(0.75, 1) if rng.random() < 0.75 else [40, 40, 44]
    tone = wall[::8, ::8].mean((0, 1))
    stone = np.clip(tone * rng.uniform(1.15, 1.5), 0, 225)
    box(wall, 0, 0, w, 0.22 * t, stone)
    box(wall, 0, 0.22 * t, w, 0.28 * t, tone * 0.6)
    columns = max(round(w / t / rng.uniform(1.8, 2.9)), 1)
    pitch = w / columns
    wide = pitch * (0.82 if kind == 'office' else rng.uniform(0.36, 0.55))
    tall = FLOOR * t * (0.6 if kind == 'office' else rng.uniform(0.48, 0.62))
    for floor in range(floors):
        bottom = h - floor * FLOOR * t
        if floor == 0 and kind == 'shop':
            _shop(rng, wall, bottom)
            continue
        door = int(rng.integers(columns)) if floor == 0 else -1
        for column in range(columns):
            x, y = (column + 0.5) * pitch - wide / 2, bottom - 0.85 * t - tall
            if column == door:
                colour = np.array(GLOSS[rng.integers(len(GLOSS))]) * 0.7
                box(wall, x, bottom - 2.3 * t, x + 1.0 * t, bottom, frame)
                box(wall, x + 3, bottom - 2.2 * t, x + 1.0 * t - 3, bottom, colour)
            else:
                _window(rng, wall, x, y, wide, tall, frame, stone, tone * 0.6)


def _window(rng, wall, x, y, wide, tall, frame, stone, shadow) -> None:
    """One window: lintel and sill, frame, panes that mirror a little sky, a curtain."""
    box(wall, x - 2, y - 5, x + wide + 2, y, stone * 0.95)
    box(wall, x - 4, y + tall, x + wide + 4, y + tall + 3, stone * 1.08)
    box(wall, x - 2, y + tall + 3, x + wide + 2, y + tall + 6, shadow)
    box(wall, x, y, x + wide, y + tall, frame)
    glass = np.array([78, 70, 62]) * rng.uniform(0.35, 1.15)
    box(wall, x + 2, y + 2, x + wide - 2, y + tall - 2, glass)
    top = y + 2 + (tall - 4) * rng.uniform(0.25, 0.6)
    box(wall, x + 2, y + 2, x + wide - 2, top, glass + rng.uniform(5, 60))
    if rng.random() < 0.35:
        box(wall, x + 2, y + 2, x + 2 + wide * 0.2, y + tall - 2, [150, 156, 160])
        box(wall, x - 2 + wide * 0.8, y + 2, x + wide - 2, y + tall - 2, [150, 156, 160])
    box(wall, x + wide / 2 - 1, y, x + wide / 2 + 1, y + tall, frame)
    box(wall, x, y + tall / 2 - 1, x + wide, y + tall / 2 + 1, frame)


def _shop(rng: np.random.Generator, wall: np.ndarray, bottom: float) -> None:
    """Shop window with goods behind it, fascia with a name, sometimes an awning."""
    t, w = TEXELS, wall.shape[1]
    colour = np.array(GLOSS[rng.integers(len(GLOSS))], float)
    box(wall, 0, bottom - 3.0 * t, w, bottom, colour * 0.85)
    y0, y1 = bottom - 2.3 * t, bottom - 0.5 * t
    panes = int(rng.integers(2, 5))
    for pane in range(panes):
        x0, x1 = (pane + 0.07) * w / panes, (pane + 0.93) * w / panes
        if pane == panes - 1:
            y1 = bottom - 2
        box(wall, x0, y0, x1, y1, [48, 44, 40])
        for _ in range(10):
            gx, gy = rng.uniform(x0, x1 - 8), rng.uniform(y0, y1 - 8)
            goods = rng.uniform(25, 130) + rng.uniform(-22, 22, 3)
            box(wall, gx, gy, min(gx + rng.uniform(4, 22), x1), min(gy + rng.uniform(6, 26), y1), goods)
        shine = [[x0, y1], [x0 + (x1 - x0) * 0.45, y0], [x0 + (x1 - x0) * 0.7, y0],
                 [x0 + (x1 - x0) * 0.3, y1]]  # fmt: skip
        polygon(wall, shine, [88, 84, 78])
    box(wall, 0, bottom - 3.0 * t, w, bottom - 2.9 * t, colour * 0.5)
    ink = [225, 228, 230] if colour.mean() < 130 else [40, 36, 34]
    x = w * rng.uniform(0.1, 0.25)
    while x < w * 0.8:
        wide = rng.uniform(3, 10)
        box(wall, x, bottom - 2.82 * t, x + wide, bottom - 2.48 * t, ink)
        box(wall, x + 2, bottom - 2.74 * t, x + wide - 1, bottom - 2.6 * t, colour * 0.85)
        x += wide + rng.choice([3, 3, 3, 12])
    if rng.random() < 0.25:
        shade = np.array(GLOSS[rng.integers(len(GLOSS))], float)
        polygon(wall, [[4, bottom - 2.4 * t], [w - 4, bottom - 2.4 * t], [w, bottom - 1.8 * t],
                       [0, bottom - 1.8 * t]], shade)  # fmt: skip


def _gable(wall: np.ndarray) -> Texture:
    picture = np.dstack([wall[:64], np.zeros((64, wall.shape[1]), np.float32)])
    polygon(picture[:, :, 3:], [[wall.shape[1] / 2, 0], [wall.shape[1], 64], [0, 64]], [255])
    return Texture(picture)


def _tiles(rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    h, w = 96, 256
    rows = rng.normal(1, 0.06, (h // 6, w // 5 + 1)).astype(np.float32)
    r, c = np.arange(h)[:, None], np.arange(w)
    joints = np.where(r % 6 == 5, 0.8, 1)
    shade = rows[r // 6 % (h // 6), c // 5] * joints * (1 + 0.1 * noise(rng, h, w, [40, 12]))
    return filled(h, w, base) * shade[:, :, None]
