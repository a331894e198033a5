"""Everything that moves, and how: cars in their lanes, people on the pavement, cyclists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vss_ros.core.synthetic.camera import CameraCar, Pose, rotation
from vss_ros.core.synthetic.people import Figure, draw_cyclist, draw_person
from vss_ros.core.synthetic.scene import SHADOW, WORLD, Motion, Scene
from vss_ros.core.synthetic.street import Street
from vss_ros.core.synthetic.vehicles import CAR, Vehicle, contact_shadow, draw_vehicle

FLAT = np.diag([1.0, 1.0, 1.0])


class Traffic:
    """Fills a scene with parked and moving vehicles and with people.

    Args:
        stretch: first and last station (m) that the camera sees in the clip.
        seconds: length of the clip.
        crossings: stations of side roads and zebra crossings.
    """

    def __init__(
        self,
        scene: Scene,
        street: Street,
        camera: CameraCar,
        stretch: tuple[float, float],
        seconds: float,
        crossings: list[float],
        rng: np.random.Generator,
    ) -> None:
        self.scene, self.street, self.camera, self.rng = scene, street, camera, rng
        self.stretch, self.seconds, self.crossings = stretch, seconds, crossings
        self.fleet = [draw_vehicle(rng) for _ in range(9)]
        self.walkers = [draw_person(rng, bool(i % 2)) for i in range(10)]
        self.riders = [draw_cyclist(rng, bool(i % 2)) for i in range(4)]
        self.shadow, self.foot_shadow = contact_shadow(0.3), contact_shadow(1.0)

    def fill(self) -> None:
        """Place everything."""
        self._parked()
        self._leading()
        self._oncoming()
        self._crossing()
        self._pedestrians()
        self._cyclists()

    def _lane_motion(self, station: Callable[[float], float], d: float, backwards: bool) -> Motion:
        """Follow the street at distance d; `station` maps seconds to s."""

        def motion(time: float) -> Pose:
            s = station(time)
            yaw = self.street.heading(s) + (np.pi if backwards else 0)
            return Pose(rotation(yaw), self.street.place(s, d))

        return motion

    def _vehicle(self, vehicle: Vehicle, motion: Motion | None, pose: Pose | None = None) -> None:
        """Add a vehicle that moves, or one that is parked at `pose`."""
        body = self.scene.body(motion) if motion else WORLD
        turn, move = (pose.rotation, pose.position) if pose else (FLAT, np.zeros(3))
        w, length = vehicle.width * 1.15, vehicle.length * 1.06
        ground = np.array([-w / 2, 0.0, -length / 2])
        self.scene.add(self.shadow, SHADOW, turn @ ground + move, turn @ [w, 0, 0],
                       turn @ [0, 0, length], body)  # fmt: skip
        for picture, origin, right, down in vehicle.faces:
            self.scene.add(picture, CAR, turn @ origin + move, turn @ right, turn @ down, body,
                           closed=True)  # fmt: skip

    def _pick(self) -> Vehicle:
        return self.fleet[int(self.rng.integers(len(self.fleet)))]

    def _parked(self) -> None:
        rng = self.rng
        for side, sign in ((0, -1), (1, 1)):
            if not self.street.parking[side]:
                continue
            d = sign * (self.street.lane + self.street.parking[side] / 2)
            s = self.stretch[0] + rng.uniform(0, 10)
            while s < self.stretch[1]:
                vehicle = self._pick()
                s += vehicle.length / 2
                clear = all(abs(s - c) > 9 for c in self.crossings)
                if clear and vehicle.length < 6 and rng.random() < 0.75:
                    yaw = self.street.heading(s) + (np.pi if rng.random() < (0.15, 0.85)[side] else 0)
                    place = self.street.place(s, d + rng.normal(0, 0.06))
                    self._vehicle(vehicle, None, Pose(rotation(yaw + rng.normal(0, 0.01)), place))
                s += vehicle.length / 2 + rng.uniform(0.6, 2.2)

    def _leading(self) -> None:
        """Cars ahead in our lane keep their distance, which slowly grows and shrinks."""
        rng, gap = self.rng, 0.0
        for _ in range(rng.binomial(3, 0.15 + 0.4 * self.street.busy)):
            gap += float(rng.uniform(11, 26))
            rate, phase = rng.uniform(0.15, 0.5), rng.uniform(0, 6)

            def station(time: float, gap=gap, rate=rate, phase=phase) -> float:
                return self.camera.station(time) + gap + 2.5 * np.sin(rate * time + phase)

            self._vehicle(self._pick(), self._lane_motion(station, -self.street.lane / 2, False))

    def _oncoming(self) -> None:
        rng = self.rng
        speed = max(self.street.speed * rng.uniform(0.7, 1.2), 4)
        s = self.stretch[0] + rng.uniform(15, 50)
        while s < self.stretch[1] + speed * self.seconds:

            def station(time: float, s=s) -> float:
                return s - speed * time

            d = self.street.lane / 2 + rng.normal(0, 0.15)
            self._vehicle(self._pick(), self._lane_motion(station, d, True))
            s += rng.uniform(9, 22) + rng.exponential(50 * (1.15 - self.street.busy))

    def _crossing(self) -> None:
        """A car crosses the street at some of the side roads, well ahead of the camera."""
        rng = self.rng
        for s in self.crossings:
            start = rng.uniform(0, max(self.seconds, 1))
            ahead = s - self.camera.station(start)
            if ahead < 25 or rng.random() > 0.4:
                continue
            sign, speed = rng.choice([-1, 1]), rng.uniform(3, 7)

            def motion(time: float, s=s, start=start, sign=sign, speed=speed) -> Pose:
                d = sign * speed * (time - start)
                yaw = self.street.heading(s) + sign * np.pi / 2
                return Pose(rotation(yaw), self.street.place(s, d))

            self._vehicle(self._pick(), motion)

    def _pedestrians(self) -> None:
        rng = self.rng
        density = 0.03 + 0.16 * self.street.busy * (0.25 + self.street.town)
        for _ in range(rng.poisson(density * (self.stretch[1] - self.stretch[0]))):
            side = int(rng.integers(2))
            kerb = self.street.kerb[side]
            s = rng.uniform(*self.stretch)
            across = rng.random() < 0.12
            d = kerb + (-1, 1)[side] * rng.uniform(0.3, max(self.street.pavement[side] - 0.3, 0.6))
            speed = 0.0 if rng.random() < 0.2 else rng.uniform(0.9, 1.6) * rng.choice([-1, 1])
            if across and s - self.camera.station(self.seconds) < 12:
                across = False
            if across:
                s, d = self._near_crossing(s), rng.uniform(*self.street.kerb)
            self._figure(self._figure_for(self.walkers, across or rng.random() < 0.15), s, d, speed, across)
            if rng.random() < 0.3 and not across:
                self._figure(self._figure_for(self.walkers, False), s + 0.3, d + 0.65, speed, False)

    def _near_crossing(self, s: float) -> float:
        ahead = [c for c in self.crossings if abs(c - s) < 30]
        return ahead[0] + self.rng.uniform(-1.5, 1.5) if ahead else s

    def _cyclists(self) -> None:
        rng = self.rng
        for _ in range(rng.poisson((self.stretch[1] - self.stretch[0]) * 0.02 * (0.4 + self.street.busy))):
            side = int(rng.integers(2))
            d = self.street.kerb[side] - (-1, 1)[side] * (0.7 + self.street.parking[side])
            forward = max(self.street.speed * rng.uniform(0.4, 0.9), 2.5)
            speed = forward if side == 0 else -rng.uniform(3, 6)
            s = rng.uniform(self.stretch[0] + 14, self.stretch[1] + abs(speed) * self.seconds)
            across = rng.random() < 0.12 and s - self.camera.station(self.seconds) > 14
            figure = self._figure_for(self.riders, across)
            self._figure(figure, s, rng.uniform(-3, 3) if across else d, speed, across)

    def _figure_for(self, figures: list[Figure], sideways: bool) -> Figure:
        fitting = [figure for figure in figures if figure.sideways == sideways]
        return fitting[int(self.rng.integers(len(fitting)))]

    def _figure(self, figure: Figure, s: float, d: float, speed: float, across: bool) -> None:
        """Add a person who moves along the street from (s, d), or across it."""
        phase = self.rng.uniform(0, 2 * np.pi)
        mirrored = -1.0 if across and speed < 0 else 1.0
        pace = 2 * np.pi * 0.75 * min(abs(speed), 1.6)
        swing = 0.42 * min(abs(speed), 1.0)

        def motion(time: float) -> Pose:
            at, aside = (s, d + speed * time) if across else (s + speed * time, d)
            bob = 0.02 * np.cos(2 * (pace * time + phase)) if figure.wheels is None else 0.0
            return Pose(rotation(self.street.heading(at)), self.street.place(at, aside, bob))

        def leg_motion(sign: float) -> Motion:
            def moved(time: float) -> Pose:
                whole = motion(time)
                angle = sign * swing * np.sin(pace * time + phase)
                turn = rotation(0, 0, angle) if figure.sideways else rotation(0, angle, 0)
                hip = np.array([0.0 if figure.sideways else sign * 0.09, -figure.hip, 0.02 * sign])
                return Pose(whole.rotation @ turn, whole.rotation @ hip + whole.position)

            return moved

        body = self.scene.body(motion)
        add, label = self.scene.add, figure.label
        wide = 0.95 * (figure.height / 1.75) * figure.trunk.width / figure.trunk.height * mirrored
        tall = figure.height - figure.hip + 0.06
        lean = -0.18 if figure.wheels is not None and figure.sideways else 0.0
        add(self.foot_shadow, SHADOW, np.array([-0.4, 0, -0.35]), np.array([0.8, 0, 0]),
            np.array([0, 0, 0.7]), body)  # fmt: skip
        if figure.wheels is not None:
            length = 1.75 * mirrored if figure.sideways else 0.24
            add(figure.wheels, label, np.array([-length / 2, -0.7, 0]), np.array([length, 0, 0]),
                np.array([0, 0.7, 0]), body)  # fmt: skip
        add(figure.trunk, label, np.array([-wide / 2 + lean * mirrored, -figure.height, -0.01]),
            np.array([wide, 0, 0]), np.array([0, tall, 0]), body)  # fmt: skip
        reach = figure.hip * (1.0 if figure.wheels is None else 0.8)
        leg_wide = 0.2 * figure.height / 1.75 * mirrored
        for sign in (-1.0, 1.0):
            add(figure.leg, label, np.array([-leg_wide / 2, 0, 0]), np.array([leg_wide, 0, 0]),
                np.array([0, reach, 0]), self.scene.body(leg_motion(sign)))  # fmt: skip
