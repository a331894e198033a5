"""What stands along the street: houses, gardens, fences, trees, lamp posts, signs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from vss_ros.core.synthetic.facades import House, draw_house
from vss_ros.core.synthetic.furniture import (
    fence_picture,
    lamp_picture,
    light_picture,
    post_picture,
    sign_picture,
)
from vss_ros.core.synthetic.light import Light
from vss_ros.core.synthetic.pavement import CHUNK, MOUTH, PLAIN, SIDE_LEFT, SIDE_RIGHT, ZEBRA
from vss_ros.core.synthetic.plants import hedge_picture, tree_picture
from vss_ros.core.synthetic.scene import Scene
from vss_ros.core.synthetic.street import Street

BUILDING, POLE, TREE, SIGN, FENCE = 1, 2, 5, 6, 7  # CamVid-11
UP = np.array([0.0, -1.0, 0.0])


class Layout:
    """Builds the still part of a scene.

    Args:
        stretch: first and last station (m) to build.

    Attributes:
        kinds: kind of ground of each chunk from `stretch[0]` on.
        crossings: stations of side roads and zebra crossings.
        shade_edge: see `Ground`.
    """

    def __init__(
        self,
        scene: Scene,
        street: Street,
        light: Light,
        stretch: tuple[float, float],
        rng: np.random.Generator,
    ) -> None:
        self.scene, self.street, self.rng, self.stretch = scene, street, rng, stretch
        start, end = stretch
        count = int(np.ceil((end - start) / CHUNK))
        self.kinds = rng.choice([PLAIN, SIDE_LEFT, SIDE_RIGHT, ZEBRA], count, p=[0.55, 0.17, 0.17, 0.11])
        self.crossings = [start + CHUNK * (i + 0.5) for i in np.flatnonzero(self.kinds != PLAIN)]
        self.shade_edge = np.zeros(int(end - start) + 2, np.float32)
        self.light = light
        self.houses = [draw_house(rng, street.town) for _ in range(8)]
        self.trees = [tree_picture(rng, street.winter and rng.random() < 0.8) for _ in range(4)]
        self.hedges = [hedge_picture(rng) for _ in range(2)]
        self.fences = [fence_picture(rng) for _ in range(3)]
        self.signs = [sign_picture(rng) for _ in range(7)]
        self.post, self.lamp, self.lights = post_picture(rng), lamp_picture(rng), light_picture(rng)

    def fill(self) -> None:
        """Place everything."""
        for side in (0, 1):
            self._houses(side)
            self._background(side)
            self._lamps(side)
            self._trees(side)
            self._small_things(side)
        self._junctions()

    def _wall(
        self,
        texture,
        label: int,
        s0: float,
        d0: float,
        s1: float,
        d1: float,
        top: float,
        bottom: float = 0.0,
        tint=(1, 1, 1),
    ) -> None:
        """An upright surface between two points of the street."""
        start, end = self.street.place(s0, d0, top), self.street.place(s1, d1, top)
        self.scene.add(texture, label, start, end - start, -UP * (top - bottom), tint=tint)

    def _sheet(
        self,
        texture,
        label: int,
        s: float,
        d: float,
        width: float,
        height: float,
        bottom: float = 0.0,
        toward: float = 0.0,
        tint=(1, 1, 1),
    ) -> None:
        """An upright surface that faces along the street, d at its middle."""
        right, along = self.street.axes(s)
        middle = self.street.place(s, d, bottom + height) - toward * along
        self.scene.add(texture, label, middle - right * width / 2, right * width, -UP * height, tint=tint)

    def _mouths(self, side: int) -> list[tuple[float, float]]:
        """Stations taken by side roads on one side."""
        kind = (SIDE_LEFT, SIDE_RIGHT)[side]
        starts = [self.stretch[0] + CHUNK * i for i in np.flatnonzero(self.kinds == kind)]
        return [(s + MOUTH[0] - 1.5, s + MOUTH[1] + 1.5) for s in starts]

    def _houses(self, side: int) -> None:
        rng, street, sign = self.rng, self.street, (-1, 1)[side]
        base = street.kerb[side] + sign * street.pavement[side]
        mouths, s = self._mouths(side), self.stretch[0]
        until, is_park = s, False
        while s < self.stretch[1]:
            if s >= until:  # the next zone
                until = s + rng.uniform(25, 80)
                is_park = rng.random() < 0.34 - 0.3 * street.town
                if is_park:
                    self._park(side, s, until, mouths)
            house = self.houses[int(rng.integers(len(self.houses)))]
            hit = [mouth for mouth in mouths if s < mouth[1] and s + house.width > mouth[0]]
            if hit:
                s = hit[0][1]
                continue
            if not is_park:
                front = base + sign * (street.garden[side] + 0.05)
                self._house(house, side, s, front)
                if street.garden[side] > 1.2:
                    self._garden(side, s, s + house.width, base)
            s += house.width
            if street.garden[side] and rng.random() < 0.5:
                s += rng.uniform(1, 5)

    def _house(self, house: House, side: int, s: float, d: float) -> None:
        sign, depth = (-1, 1)[side], 9.0
        end, back = s + house.width, d + sign * 9.0
        tint = tuple(self.rng.uniform(0.85, 1.12) * (1 + self.rng.normal(0, 0.02, 3)))
        self._wall(house.front, BUILDING, s, d, end, d, house.height, tint=tint)
        for station in (s, end):
            self._wall(house.wall, BUILDING, station, d, station, back, house.height, tint=tint)
        if house.rise:
            eaves = [self.street.place(x, d - sign * 0.3, house.height - 0.1) for x in (s, end)]
            ridge = self.street.place(s, d + sign * depth / 2, house.height + house.rise)
            self.scene.add(house.roof, BUILDING, ridge, eaves[1] - eaves[0], eaves[0] - ridge, tint=tint)
            for station in (s, end):
                self._wall(house.gable, BUILDING, station, d, station, back, house.height + house.rise,
                           house.height, tint=tint)  # fmt: skip
            for _ in range(self.rng.integers(0, 3)):
                at, x = d + sign * depth / 2, self.rng.uniform(s + 0.5, end - 0.5)
                top = house.height + house.rise + 1.1
                self._sheet(house.wall, BUILDING, x, at, 0.8, 2.2, top - 2.2, tint=(0.8, 0.8, 0.8))
                self._wall(house.wall, BUILDING, x, at - sign * 0.4, x + 0.9, at - sign * 0.4, top,
                           top - 2.2, tint=(0.8, 0.8, 0.8))  # fmt: skip
        self._shade(s, end, d, house.height + house.rise * 0.6)
        if self.rng.random() < 0.32 * self.street.town:
            picture, wide, high = self.signs[int(self.rng.integers(len(self.signs)))]
            at = d - sign * (0.15 + wide / 2)
            self._sheet(picture, SIGN, s + self.rng.uniform(0, house.width), at, wide, high, 2.8)

    def _shade(self, s0: float, s1: float, d: float, height: float) -> None:
        """Note the shadow that a house throws over the street, if the sun is behind it."""
        heading = self.street.heading((s0 + s1) / 2)
        sun_d = self.light.sun[0] * np.cos(heading) - self.light.sun[2] * np.sin(heading)
        sun_s = self.light.sun[0] * np.sin(heading) + self.light.sun[2] * np.cos(heading)
        if sun_d * d <= 0:
            return
        drop = height / -self.light.sun[1]
        reach, slide = abs(sun_d) * drop, -sun_s * drop
        first, last = sorted((s0 + slide, s1 + slide)) if abs(slide) < 60 else (s0, s1)
        rows = slice(max(int(first - self.stretch[0]), 0), max(int(last - self.stretch[0]), 0))
        # Kept as a signed distance: the ground beyond it, towards the house, lies in shadow.
        edge = max(abs(d) - reach, 0.3)
        if np.sign(self.shade_edge[rows]).sum() * np.sign(d) >= 0:
            self.shade_edge[rows] = np.sign(d) * edge

    def _garden(self, side: int, s0: float, s1: float, d: float) -> None:
        rng = self.rng
        choice = rng.random()
        if choice < 0.45:
            self._fence(s0, s1, d, rng.uniform(0.9, 1.5))
        elif choice < 0.8:
            self._wall(self.hedges[int(rng.integers(2))], TREE, s0, d, s1, d, rng.uniform(1.1, 2.1))
        if rng.random() < 0.35:
            self._tree(rng.uniform(s0, s1), d + (-1, 1)[side] * 1.0, rng.uniform(2.5, 5.5))

    def _fence(self, s0: float, s1: float, d: float, height: float) -> None:
        texture = self.fences[int(self.rng.integers(len(self.fences)))]
        count = max(round((s1 - s0) / (4 * height)), 1)
        edges = np.linspace(s0, s1, count + 1)
        for a, b in pairwise(edges):
            self._wall(texture, FENCE, float(a), d, float(b), d, height)

    def _park(self, side: int, s0: float, s1: float, mouths: list[tuple[float, float]]) -> None:
        rng, sign = self.rng, (-1, 1)[side]
        base = self.street.kerb[side] + sign * self.street.pavement[side]
        fenced, height = rng.random() < 0.7, float(rng.uniform(1.0, 1.7))
        s = s0
        while s < s1:
            step = float(rng.uniform(4, 8))
            if not any(s < b and s + step > a for a, b in mouths):
                if fenced:
                    self._fence(s, s + step, base, height)
                elif rng.random() < 0.4:
                    self._wall(self.hedges[0], TREE, s, base, s + step, base, height)
                self._tree(s, base + sign * rng.uniform(1.5, 9), rng.uniform(5, 12))
            s += step

    def _tree(self, s: float, d: float, height: float) -> None:
        texture = self.trees[int(self.rng.integers(len(self.trees)))]
        tint = tuple(np.full(3, self.rng.uniform(0.8, 1.15)))
        self._sheet(texture, TREE, s, d, height * self.rng.uniform(0.75, 1.05), height, tint=tint)

    def _background(self, side: int) -> None:
        """A far row of houses and trees that closes the gaps."""
        rng, sign, s = self.rng, (-1, 1)[side], self.stretch[0]
        while s < self.stretch[1]:
            d = sign * rng.uniform(30, 45)
            if rng.random() < 0.5:
                self._tree(s, d, rng.uniform(7, 13))
                s += rng.uniform(5, 10)
            else:
                house = self.houses[int(rng.integers(len(self.houses)))]
                self._wall(house.front, BUILDING, s, d, s + house.width, d, house.height)
                self._wall(house.wall, BUILDING, s, d, s, d + sign * 8, house.height)
                s += house.width + rng.uniform(0, 12)

    def _lamps(self, side: int) -> None:
        rng, sign = self.rng, (-1, 1)[side]
        s = self.stretch[0] + rng.uniform(0, 25)
        pitch, height = rng.uniform(18, 34), rng.uniform(6, 9)
        d = self.street.kerb[side] + sign * 0.5
        if rng.random() < 0.25:
            return
        while s < self.stretch[1]:
            self._sheet(self.post, POLE, s, d, 0.2, height)
            right, _ = self.street.axes(s)
            corner = self.street.place(s, d, height + 0.4)
            self.scene.add(self.lamp, POLE, corner, -sign * right * 1.6, -UP * 0.5)
            if rng.random() < 0.35:
                picture, wide, high = self.signs[int(rng.integers(len(self.signs)))]
                self._sheet(picture, SIGN, s, d, wide, high, rng.uniform(2.1, 2.6), 0.12)
            s += pitch

    def _trees(self, side: int) -> None:
        """Trees at the edge of the pavement."""
        rng, sign = self.rng, (-1, 1)[side]
        if rng.random() < 0.3 + 0.4 * self.street.town:
            return
        s, pitch = self.stretch[0] + rng.uniform(5, 30), rng.uniform(9, 35)
        while s < self.stretch[1]:
            self._tree(s, self.street.kerb[side] + sign * rng.uniform(0.8, 1.4), rng.uniform(5, 10))
            s += pitch * rng.uniform(0.7, 1.5)

    def _small_things(self, side: int) -> None:
        """Signs on posts, bollards and railings near the kerb."""
        rng, sign = self.rng, (-1, 1)[side]
        edge = self.street.kerb[side]
        for s in np.arange(self.stretch[0], self.stretch[1], 13.0) + rng.uniform(0, 13):
            choice, d = rng.random(), edge + sign * rng.uniform(0.3, 0.6)
            if choice < 0.34:
                self._signpost(float(s), d)
            elif choice < 0.44:
                for step in range(rng.integers(2, 7)):
                    self._sheet(self.post, POLE, s + 1.6 * step, d, 0.16, 1.0)
            elif choice < 0.54 and all(abs(s - c) > 14 for c in self.crossings):
                self._fence(float(s), float(s) + rng.uniform(5, 12), edge + sign * 0.25, 1.05)

    def _signpost(self, s: float, d: float) -> None:
        picture, wide, high = self.signs[int(self.rng.integers(len(self.signs)))]
        bottom = self.rng.uniform(1.6, 2.4)
        self._sheet(self.post, POLE, s, d, 0.12, bottom + high)
        self._sheet(picture, SIGN, s, d, wide, high, bottom, 0.06)

    def _junctions(self) -> None:
        """Traffic lights or signs where side roads and zebra crossings meet the street."""
        for s in self.crossings:
            lights = self.rng.random() < 0.4
            for side in (0, 1):
                d = self.street.kerb[side] + (-1, 1)[side] * 0.45
                at = s - 6.5
                if lights:
                    self._sheet(self.post, POLE, at, d, 0.15, 3.4)
                    self._sheet(self.lights, SIGN, at, d, 0.42, 1.1, 2.4, 0.08)
                elif self.rng.random() < 0.5:
                    self._signpost(at, d)
