"""Cars, vans and buses: a lower body and a cabin with inclined sides, each face a picture.

Own axes of a vehicle: x right, y down with the ground at 0, z ahead; the origin is below its middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vss_ros.core.synthetic.texture import Texture, blank, box, ellipse, filled, polygon

CAR = 8  # CamVid-11
TEXELS = 80  # per metre
PAINTS = ([200, 202, 204], [165, 168, 170], [120, 122, 122], [42, 42, 44], [30, 30, 32], [50, 45, 130],
          [40, 36, 150], [120, 70, 40], [90, 50, 30], [70, 78, 40], [150, 165, 170], [226, 228, 228],
          [95, 100, 104])  # fmt: skip
GLASS = np.array([62, 56, 50])
Face = tuple[Texture, np.ndarray, np.ndarray, np.ndarray]  # picture, origin, right, down


@dataclass(frozen=True)
class Vehicle:
    """A design: its faces in own coordinates, and its size in metres."""

    faces: list[Face]
    length: float
    width: float
    height: float


@dataclass(frozen=True)
class _Shape:
    length: float
    width: float
    height: float
    waist: float  # height of the lower edge of the windows
    bonnet: float  # length of the bonnet at the waist
    boot: float
    front_slope: float  # how far the windscreen leans back over its height
    rear_slope: float


def draw_vehicle(rng: np.random.Generator) -> Vehicle:
    """Design a vehicle: mostly cars, some vans, a bus now and then."""
    kinds = ['hatchback', 'saloon', 'estate', 'van', 'bus']
    kind = str(rng.choice(kinds, p=[0.42, 0.22, 0.16, 0.15, 0.05]))
    grow = float(rng.uniform(0.94, 1.08))
    shape = {
        'hatchback': _Shape(3.9, 1.68, 1.46, 0.92, 0.85, 0.05, 0.85, 0.45),
        'saloon': _Shape(4.5, 1.75, 1.42, 0.92, 1.05, 0.75, 0.95, 0.65),
        'estate': _Shape(4.4, 1.75, 1.52, 0.94, 1.0, 0.03, 0.85, 0.3),
        'van': _Shape(4.9, 1.95, 2.1, 1.15, 0.8, 0.0, 0.75, 0.03),
        'bus': _Shape(9.5, 2.45, 3.1, 1.3, 0.0, 0.0, 0.12, 0.03),
    }[kind]
    paint = np.array(PAINTS[rng.integers(len(PAINTS))], float) * rng.uniform(0.85, 1.1)
    if kind == 'van' and rng.random() < 0.6:
        paint = np.array([222, 224, 224.0])
    if kind == 'bus':
        paint = np.array([[40, 36, 170], [190, 190, 180], [140, 80, 40]][rng.integers(3)], float)
    faces = [
        (picture, grow * origin, grow * right, grow * down)
        for picture, origin, right, down in _Painter(rng, shape, paint, kind).faces()
    ]
    return Vehicle(faces, grow * shape.length, grow * shape.width, grow * shape.height)


class _Painter:
    def __init__(self, rng: np.random.Generator, shape: _Shape, paint: np.ndarray, kind: str) -> None:
        self.rng, self.shape, self.paint, self.kind = rng, shape, paint, kind
        self.inset = 0.04 if kind in ('van', 'bus') else 0.16  # how far the roof is in from the sides

    def faces(self) -> list[Face]:
        s = self.shape
        half, front, rear = s.width / 2, s.length / 2, -s.length / 2
        base = 0.2  # ground clearance
        screen = front - s.bonnet  # foot of the windscreen
        back = rear + s.boot
        roof_front, roof_back = screen - s.front_slope, back + s.rear_slope
        top = half - self.inset
        cabin = s.height - s.waist
        faces: list[Face] = []

        def face(picture: np.ndarray, origin, right, down) -> None:
            faces.append((Texture(picture), np.array(origin), np.array(right), np.array(down)))

        x = np.array([2 * half, 0, 0])
        across = (2 * half, s.waist - base)
        face(self._rear(*across), [-half, -s.waist, rear], x, [0, s.waist - base, 0])
        face(self._front(*across), [half, -s.waist, front], -x, [0, s.waist - base, 0])
        if s.bonnet:
            face(self._panel(1.05), [half, -s.waist, screen], -x, [0, 0, s.bonnet])
        if s.boot:
            face(self._panel(1.0), [-half, -s.waist, back], x, [0, 0, -s.boot])
        face(self._panel(1.05), [-top, -s.height, roof_front],
             [2 * top, 0, 0], [0, 0, roof_back - roof_front])  # fmt: skip
        lean = half / top if top else 1
        face(self._screen(lean, False), [-half, -s.height, roof_back], x,
             [0, cabin, back - roof_back])  # fmt: skip
        face(self._screen(lean, True), [half, -s.height, roof_front], -x,
             [0, cabin, screen - roof_front])  # fmt: skip
        side = self._side()
        windows = self._windows(screen, back, roof_front, roof_back, cabin)
        for sign in (-1, 1):
            # On its left the vehicle's front is to the right of the picture, on its right to the left.
            ahead, start = (np.array([0, 0, s.length]), rear) if sign > 0 else (
                np.array([0, 0, -s.length]), front)  # fmt: skip
            body, upper = (side, windows) if sign > 0 else (side[:, ::-1], windows[:, ::-1])
            face(body, [sign * half, -s.waist, start], ahead, [0, s.waist, 0])
            face(upper, [sign * top, -s.height, start], ahead, [sign * self.inset, cabin, 0])
        faces.append(self._underside(half, rear, base))
        return faces

    def _canvas(self, width: float, height: float, colour) -> np.ndarray:
        return filled(max(round(height * TEXELS), 4), max(round(width * TEXELS), 4), colour)

    def _panel(self, gain: float) -> np.ndarray:
        """Bonnet, roof or boot: paint that mirrors the sky."""
        picture = filled(64, 64, np.clip(self.paint * 0.85 * gain + 28, 0, 235))
        return picture * (1 + 0.12 * np.cos(np.linspace(-2, 2, 64)))[:, None, None]

    def _rear(self, width: float, height: float) -> np.ndarray:
        p = self._canvas(width, height, self.paint)
        h, w = p.shape[:2]
        p *= np.linspace(1.08, 0.72, h)[:, None, None]
        box(p, 0, h * 0.62, w, h, self.paint * 0.6)
        box(p, 0, h * 0.9, w, h, [22, 22, 22])
        for x in (0.02, 0.82):
            box(p, w * x, h * 0.12, w * (x + 0.16), h * 0.5, [36, 30, 165])
            box(p, w * x, h * 0.4, w * (x + 0.16), h * 0.5, [120, 130, 215])
        box(p, w * 0.34, h * 0.4, w * 0.66, h * 0.58, [40, 190, 215])
        box(p, w * 0.37, h * 0.45, w * 0.63, h * 0.54, [40, 60, 60])
        return p

    def _front(self, width: float, height: float) -> np.ndarray:
        p = self._canvas(width, height, self.paint)
        h, w = p.shape[:2]
        p *= np.linspace(1.05, 0.75, h)[:, None, None]
        box(p, w * 0.28, h * 0.2, w * 0.72, h * 0.42, [28, 28, 28])
        box(p, w * 0.3, h * 0.28, w * 0.7, h * 0.31, [120, 122, 122])
        for x in (0.03, 0.75):
            box(p, w * x, h * 0.15, w * (x + 0.22), h * 0.42, [205, 208, 208])
            ellipse(p, [w * (x + 0.11), h * 0.29], [w * 0.07, h * 0.11], [240, 240, 238])
        box(p, w * 0.12, h * 0.7, w * 0.88, h * 0.92, [30, 30, 30])
        box(p, w * 0.36, h * 0.5, w * 0.64, h * 0.65, [222, 222, 218])
        box(p, w * 0.39, h * 0.54, w * 0.61, h * 0.61, [50, 50, 50])
        return p

    def _screen(self, lean: float, is_front: bool) -> np.ndarray:
        """Windscreen or rear window: a trapezium narrower at the top, cut out of the rectangle."""
        canvas = blank(72, 128)
        edge = 64 * (1 - 1 / lean)
        polygon(canvas, [[edge, 0], [128 - edge, 0], [128, 72], [0, 72]], self.paint * 0.8)
        top = 6 if self.kind != 'van' or is_front else 20
        colour = GLASS * (1.15 if is_front else 0.9)
        polygon(canvas, [[edge + 8, top], [120 - edge, top], [121, 68], [7, 68]], colour)
        shine = colour + np.array([70, 66, 60]) * (1.0 if is_front else 0.6)
        polygon(canvas, [[edge + 12, top + 2], [116 - edge, top + 2], [112, 26], [14, 34]], shine)
        return canvas

    def _side(self) -> np.ndarray:
        """Lower body with arches, doors and wheels; the front is on the right."""
        s = self.shape
        h, w = round(s.waist * TEXELS), round(s.length * TEXELS)
        canvas = blank(h, w)
        sill = h - 0.22 * TEXELS
        nose = 0.1 * TEXELS
        polygon(canvas, [[0, 2], [3, 0], [w - nose, 0], [w, nose], [w, sill], [0, sill]], self.paint)
        shade = np.interp(np.arange(h) / h, [0, 0.2, 0.45, 0.5, 1], [1.15, 1.05, 0.95, 0.82, 0.62])
        canvas[:, :, :3] = np.clip(canvas[:, :, :3] * shade[:, None, None], 0, 255)
        for x in (0.34, 0.6) if self.kind != 'bus' else (0.1, 0.85):
            box(canvas, w * x, 3, w * x + 2, sill - 6, self.paint * 0.4)
            box(canvas, w * x + 8, h * 0.2, w * x + 20, h * 0.25, self.paint * 0.5)
        radius = 0.31 * TEXELS if self.kind != 'bus' else 0.46 * TEXELS
        for x in (0.75 * TEXELS, w - 0.8 * TEXELS):
            ellipse(canvas, [x, h - radius], [radius * 1.22, radius * 1.2], [18, 18, 18])
            ellipse(canvas, [x, h - radius], [radius, radius], [34, 34, 34])
            ellipse(canvas, [x, h - radius], [radius * 0.62, radius * 0.62], [150, 150, 150])
            ellipse(canvas, [x, h - radius], [radius * 0.25, radius * 0.25], [70, 70, 70])
        box(canvas, 0, h * 0.12, 0.12 * TEXELS, h * 0.4, [40, 34, 150])
        box(canvas, w - 0.2 * TEXELS, h * 0.16, w, h * 0.35, [205, 208, 208])
        return canvas

    def _windows(self, screen, back, roof_front, roof_back, cabin) -> np.ndarray:
        """Side of the cabin, as long as the vehicle; the front is on the right."""
        s = self.shape
        h, w = round(cabin * TEXELS), round(s.length * TEXELS)
        canvas = blank(h, w)

        def column(z: float) -> float:
            return (z + s.length / 2) * TEXELS

        outline = [[column(back), h], [column(roof_back), 0], [column(roof_front), 0], [column(screen), h]]
        polygon(canvas, outline, self.paint * 0.95)
        if self.kind == 'van':
            outline[0][0], outline[1][0] = column(0.9), column(0.9)
        middle = np.mean(outline, axis=0)
        glass = [[x + np.clip(middle[0] - x, -7, 7), y * 0.8 + 0.1 * h] for x, y in outline]
        polygon(canvas, glass, GLASS)
        polygon(canvas, [glass[1], glass[2], [glass[2][0], h * 0.35], [glass[1][0], h * 0.45]], GLASS + 45)
        pillars = (0.38, 0.62) if self.kind != 'bus' else np.linspace(0.1, 0.9, 7)
        for pillar in pillars:
            x = w * pillar
            opaque = canvas[:, round(x) : round(x) + 5, 3] > 128
            canvas[:, round(x) : round(x) + 5, :3][opaque] = np.clip(self.paint * 0.5, 0, 255)
        return canvas

    def _underside(self, half: float, rear: float, base: float) -> Face:
        """Wheels and darkness under the body, seen from behind and in front."""
        canvas = blank(24, 128)
        box(canvas, 4, 0, 24, 24, [24, 24, 24])
        box(canvas, 104, 0, 124, 24, [24, 24, 24])
        box(canvas, 24, 0, 104, 9, [16, 16, 16])
        x = np.array([2 * half, 0, 0])
        return Texture(canvas), np.array([-half, -base, rear + 0.5]), x, np.array([0, base, 0])


def contact_shadow(roundness: float) -> Texture:
    """The dark patch under something: black, soft at its edges; 1 is round, 0 has square corners."""
    canvas = blank(48, 48)
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    square = np.maximum(np.abs(x), np.abs(y))
    reach = square + roundness * (np.hypot(x, y) - square)
    canvas[:, :, 3] = np.clip(1.5 - 1.5 * reach**3, 0, 1) * 170
    return Texture(canvas)
