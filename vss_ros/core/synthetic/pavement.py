"""Paints the surface of the street, chunk by chunk: colours and labels of asphalt, kerb, slabs, grass."""

from __future__ import annotations

import cv2
import numpy as np

from vss_ros.core.synthetic.street import Street
from vss_ros.core.synthetic.texture import noise, polygon

KINDS = ('plain', 'side road left', 'side road right', 'zebra')
PLAIN, SIDE_LEFT, SIDE_RIGHT, ZEBRA = range(4)
CHUNK = 25.6  # metres along the street
MARGIN = 2.56
HALF_WIDTH = 17.6  # metres painted to each side of the centre line
TEXEL_ALONG = 0.04
TEXEL_ACROSS = 0.025
DASH_PERIOD = 6.4
MOUTH = (7.8, 17.8)  # where a side road meets the street, metres from the start of its chunk

ROAD, PAVEMENT, GRASS = 3, 4, 5  # CamVid-11; it counts grass with the trees


def paint_chunks(street: Street, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Atlas of all kinds, one below the other: colours (h, w, 3) uint8 and labels (h, w) uint8."""
    paint = ChunkPainter(street, rng)
    plain, *others = [paint.chunk(kind) for kind in range(len(KINDS))]
    margin = round(MARGIN / TEXEL_ALONG)
    colours, labels = [], []
    for colour, label in (plain, *others):
        colours += [plain[0][-margin:], colour, plain[0][:margin]]
        labels += [plain[1][-margin:], label, plain[1][:margin]]
    return np.concatenate(colours), np.concatenate(labels)


class ChunkPainter:
    """Holds what all chunks of a street have in common."""

    def __init__(self, street: Street, rng: np.random.Generator) -> None:
        self.street, self.rng = street, rng
        rows, columns = round(CHUNK / TEXEL_ALONG), round(2 * HALF_WIDTH / TEXEL_ACROSS)
        self.d = (np.arange(columns, dtype=np.float32) + 0.5) * TEXEL_ACROSS - HALF_WIDTH
        blotches = noise(rng, rows, columns, [90, 40, 12])
        fine = rng.standard_normal((rows, columns), np.float32)
        self.grey = float(rng.uniform(72, 112))
        tint = np.array([1.04, 1.0, 0.96]) * (1 + rng.normal(0, 0.025, 3))
        shade = (1 + 0.05 * blotches + 0.05 * fine) * self._wheel_tracks()
        self.asphalt = _coloured(shade, self.grey * tint)
        self.slabs = self._slabs(rows, columns, blotches, fine)
        self.grass = self._grass(blotches, fine)
        self.marking_style = rng.choice(['dashes', 'solid', 'none', 'zigzag'], p=[0.6, 0.2, 0.1, 0.1])
        self.yellow = rng.random(2) < 0.45
        self.white = float(rng.uniform(150, 205))
        self.wear = noise(rng, rows, columns, [30, 8, 3])

    def chunk(self, kind: int) -> tuple[np.ndarray, np.ndarray]:
        """One chunk, colours (rows, columns, 3) uint8 and labels (rows, columns) uint8."""
        left, right = self.street.kerb
        rows = self.asphalt.shape[0]
        s = (np.arange(rows, dtype=np.float32)[:, None] + 0.5) * np.float32(TEXEL_ALONG)
        d = self.d[None]
        off = np.where(d < 0, left - d, d - right)  # metres off the main road
        beside = np.repeat(off, rows, axis=0)  # metres off any road
        if kind in (SIDE_LEFT, SIDE_RIGHT):
            outside = (left - d) if kind == SIDE_LEFT else (d - right)
            rounding = 3 * np.clip(1 - np.maximum(outside, 0) / 3, 0, 1) ** 2
            mouth = np.maximum(MOUTH[0] - rounding - s, s - MOUTH[1] - rounding)
            beside = np.where(outside >= 0, np.minimum(beside, mouth), beside)
        colour = self.asphalt.copy()
        self._patch(colour, kind)
        self._markings(colour, s, d, kind, beside)
        width = np.where(d < 0, *self.street.pavement)
        green = np.where(d < 0, *self.street.grass)
        walk = beside >= 0
        lawn = (beside > width) & green
        cv2.copyTo(self.slabs, walk.view(np.uint8), colour)
        cv2.copyTo(self.grass, lawn.view(np.uint8), colour)
        kerb = walk & (beside < 0.16)
        colour[kerb] = colour[kerb] * 0.25 + self.grey
        gutter = (beside > -0.09) & (beside < 0.02)
        colour[gutter] = colour[gutter] * 0.62
        label = np.where(lawn, GRASS, np.where(walk, PAVEMENT, ROAD)).astype(np.uint8)
        return colour, label

    def _wheel_tracks(self) -> np.ndarray:
        """Darkening across the road where tyres run, (columns,)."""
        tracks = np.zeros_like(self.d)
        for lane in (-self.street.lane / 2, self.street.lane / 2):
            for wheel in (-0.75, 0.75):
                tracks += np.exp(-(((self.d - lane - wheel) / 0.35) ** 2))
        return 1 - np.float32(0.07) * tracks

    def _patch(self, colour: np.ndarray, kind: int) -> None:
        """Repairs, cracks and manhole covers."""
        rows = colour.shape[0]
        rng = np.random.default_rng([kind, int(self.grey * 1000)])
        left, right = self.street.kerb
        for _ in range(rng.integers(1, 4)):
            x = (rng.uniform(left, right - 1) + HALF_WIDTH) / TEXEL_ACROSS
            y = rng.uniform(0.1, 0.7) * rows
            w, h = rng.uniform(0.6, 2) / TEXEL_ACROSS, rng.uniform(1, 6) / TEXEL_ALONG
            part = colour[int(y) : int(y + h), int(x) : int(x + w)]
            part[:] = np.minimum(part * rng.uniform(0.72, 1.12), 255)
        for _ in range(2):
            x = (rng.uniform(left + 0.5, right - 0.5) + HALF_WIDTH) / TEXEL_ACROSS
            y, angle = rng.uniform(0.1, 0.9) * rows, np.linspace(0, 2 * np.pi, 24)
            ring = np.stack([x + 12 * np.cos(angle), y + 7.5 * np.sin(angle)], 1)
            polygon(colour, ring.tolist(), [self.grey * 0.55] * 3)

    def _markings(
        self, colour: np.ndarray, s: np.ndarray, d: np.ndarray, kind: int, beside: np.ndarray
    ) -> None:
        left, right = self.street.kerb
        style = self.marking_style
        paint = np.zeros((len(s), d.shape[1]), bool)
        aside = d
        if style == 'zigzag':
            aside = d - 0.35 * np.abs((s % 3.2) / 1.6 - 1) + 0.17
        if style != 'none':
            paint |= (np.abs(aside) < 0.07) & ((s % DASH_PERIOD < 2.4) | (style in ('solid', 'zigzag')))
        for side, edge in ((0, left + self.street.parking[0]), (1, right - self.street.parking[1])):
            if self.street.parking[side]:
                paint |= (np.abs(d - edge) < 0.05) & (s % 0.8 < 0.5)
        if kind in (SIDE_LEFT, SIDE_RIGHT):
            paint &= ~((s > MOUTH[0]) & (s < MOUTH[1]) & (np.abs(d) > 1))
            kerb = left if kind == SIDE_LEFT else right
            inside = (s > MOUTH[0]) & (s < MOUTH[1])
            paint |= inside & (np.abs(np.abs(d - kerb) - 0.2) < 0.1) & (s % 1.0 < 0.6)
        if kind == ZEBRA:
            zebra = (s > 11) & (s < 14) & (d > left + 0.2) & (d < right - 0.2)
            paint = np.where((s > 9.5) & (s < 15.5), zebra & ((d - left) % 1.1 < 0.55), paint)
            paint |= ((np.abs(s - 9.8) < 0.1) | (np.abs(s - 15.2) < 0.1)) & (beside < -0.2) & (d % 1 < 0.6)
        paint = np.broadcast_to(paint, beside.shape)
        cover = np.clip(0.8 + 0.35 * self.wear[paint], 0.15, 0.95)[:, None]
        colour[paint] = colour[paint] * (1 - cover) + self.white * cover
        yellow = np.zeros(beside.shape, bool)
        for side in (0, 1):
            if self.yellow[side] and not self.street.parking[side]:
                here = (d < 0) == (side == 0)
                yellow |= here & (np.abs(np.abs(beside + 0.33) - 0.11) < 0.05)
        cover = np.clip(0.65 + 0.4 * self.wear[yellow], 0.1, 0.9)[:, None]
        colour[yellow] = colour[yellow] * (1 - cover) + np.array([60, 150, 175]) * cover

    def _slabs(self, rows: int, columns: int, blotches: np.ndarray, fine: np.ndarray) -> np.ndarray:
        """Paving stones, or asphalt with a little more light in it, (rows, columns, 3)."""
        rng = self.rng
        base = self.grey * rng.uniform(0.85, 1.25) * np.array([0.98, 1.0, 1.02])
        shade = 1 + 0.05 * blotches + 0.04 * fine
        if rng.random() < 0.65:
            size_s, size_d = round(0.64 / TEXEL_ALONG), round(0.6 / TEXEL_ACROSS)
            grid = rng.normal(1, 0.05, (rows // size_s + 1, columns // size_d + 1)).astype(np.float32)
            r, c = np.arange(rows)[:, None], np.arange(columns)
            shade = shade * grid[r // size_s, c // size_d]
            shade = np.where((r % size_s == 0) | (c % size_d == 0), 0.78 * shade, shade)
        return _coloured(shade, base)

    def _grass(self, blotches: np.ndarray, fine: np.ndarray) -> np.ndarray:
        green = np.array([44, 96, 84]) * self.rng.uniform(0.75, 1.15)
        green = green * (1 + self.rng.normal(0, 0.06, 3))
        return _coloured(1 + 0.16 * blotches + 0.16 * fine, green)


def _coloured(shade: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 picture of one colour under a shade (h, w)."""
    return cv2.merge([cv2.convertScaleAbs(np.maximum(shade, 0), alpha=float(c)) for c in colour])
