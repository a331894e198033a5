"""Labelled clips of drives into stills, to calibrate and to score on; `clips.py` says how they are made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vss_ros.core.errors import SourceError
from vss_ros.core.frame import Frame
from vss_ros.core.model.folder import ModelFolder
from vss_ros.training.clips import SceneClasses, StillDriver
from vss_ros.training.data import load_folder

FRAME_NS = 66_666_667
SEED = 4000
GROUPS = 6


class DrivenClip:
    """A clip of which every frame is labelled. It depends on the stills, its number and its length only.

    Attributes:
        name: of the drive.
        group: clips of one group show the same stills.
    """

    def __init__(self, driver: StillDriver, number: int, group: int, length: int, backwards: bool) -> None:
        self.name = f'drive {number}'
        self.group = group
        self._driver, self._number = driver, number
        self._length, self._backwards = length, backwards

    def __len__(self) -> int:
        return self._length

    def frames(self, before: int | None = None, after: int = 0) -> Iterator[tuple[int, Frame]]:
        """Numbers and frames: all, for all are labelled (see `evaluation/clips.py`)."""
        clip = self._driver.clip(np.random.default_rng([SEED, self._number]), self._length, self._backwards)
        for index, (image, truth) in enumerate(zip(clip.images, clip.labels, strict=True)):
            yield index, Frame(image, index * FRAME_NS, truth=truth)


def drives_into(
    folder: Path, model: ModelFolder, share: float, clips: int, length: int, backwards: bool | None = False
) -> list[DrivenClip]:
    """Drives into the stills of a folder (images/ and labels/), in the size of a model, group by group.

    Args:
        share: of every drive of the stills, the last so much is taken; 1: all.
        clips: how many.
        length: frames of each.
        backwards: they end with the still instead of beginning with it. What lies away from the still is
            magnified, and so less sharp: forwards what is carried has more detail than the frame it comes to,
            backwards less. None: one and the other in turn.
    Raises:
        SourceError: the folder cannot be read, or the share is less than one image.
    """
    _, stills = load_folder(folder, *model.image_size, len(model.classes)).split(share)
    if not len(stills):
        raise SourceError(f'{share:g} of each drive in {folder} is less than one image; use more')
    scene = SceneClasses.of(model.classes)
    places = np.arange(len(stills))
    groups = np.array_split(places, min(GROUPS, len(stills)))
    found = []
    for group, members in enumerate(groups):
        driver = StillDriver(stills.where([place in members for place in places]), scene, recoloured=False)
        numbers = range(group, clips, len(groups))
        for turn, number in enumerate(numbers):
            back = turn % 2 == 1 if backwards is None else backwards
            found.append(DrivenClip(driver, number, group, length, back))
    return found
