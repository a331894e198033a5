"""Frames of a synthetic street, each with its exact mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vss_ros.core.classes import ClassSet, load_classes
from vss_ros.core.frame import Frame
from vss_ros.core.synthetic import STREET_CLASSES, StreetClip


class SyntheticSource:
    """Gives the frames of a `StreetClip`, truth = mask (CamVid-11 ids).

    Args:
        seed, frames, height, width: see `StreetClip`.
        rate: frames per second.
        camera: the frames' camera name.

    Raises:
        SettingsError: an argument is out of range.
    """

    is_labelled = True

    def __init__(
        self,
        seed: int = 0,
        frames: int = 150,
        height: int = 360,
        width: int = 480,
        rate: float = 15.0,
        camera: str = 'synthetic',
    ) -> None:
        self.clip = StreetClip(seed, frames, height, width, rate)
        self.camera = camera

    def __len__(self) -> int:
        return len(self.clip)

    def __iter__(self) -> Iterator[Frame]:
        for street in self.clip:
            yield Frame(street.image, street.stamp_ns, self.camera, truth=street.mask)

    def close(self) -> None:
        """Nothing is held open."""


def known_in(classes: ClassSet, frames: Iterable[Frame]) -> Iterable[Frame]:
    """Frames of a street, without their truth if they are for a model that knows other classes."""
    if classes.names == load_classes(STREET_CLASSES).names:
        return frames
    return (replace(frame, truth=None) for frame in frames)
