"""Pictures of a few frames, spread evenly over whatever comes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.drawing import overlay
from vss_ros.core.frame import UNLABELLED, Frame, Segmentation
from vss_ros.core.resize import fit

WIDTH = 320  # pixels of a picture
MOST = 6  # samples at the end; up to twice as many are held on the way
ALPHA = 0.75  # of the colours of masks
WRONG = (40, 40, 230)  # BGR
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 88]


@dataclass
class Sample:
    """JPEGs of one frame, by `subject/picture`; image and truth belong to the subject ''."""

    title: str
    classes: ClassSet
    pictures: dict[str, bytes] = field(default_factory=dict)

    def add(self, subject: str, frame: Frame, segmentation: Segmentation) -> None:
        """Draws what a subject made of the frame."""
        assert frame.truth is not None
        grey = cv2.cvtColor(cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        labelled = frame.truth < len(self.classes)
        error = cv2.addWeighted(grey, 0.5, np.full_like(grey, 255), 0.3, 0)
        error[~labelled] = 0
        error[labelled & (segmentation.mask != frame.truth)] = WRONG
        self._put(f'{subject}/mask', overlay(frame.image, segmentation.mask, self.classes, ALPHA))
        self._put(f'{subject}/error', error)
        self._put(f'{subject}/confidence', cv2.applyColorMap(segmentation.confidence, cv2.COLORMAP_VIRIDIS))
        if segmentation.read_distortion is not None:
            self._put(
                f'{subject}/distortion', cv2.applyColorMap(segmentation.distortion(), cv2.COLORMAP_INFERNO)
            )

    def add_frame(self, frame: Frame) -> None:
        """Draws the image and the truth."""
        assert frame.truth is not None
        truth = np.where(frame.truth < len(self.classes), frame.truth, np.uint8(UNLABELLED))
        self._put('/image', frame.image)
        self._put('/truth', overlay(frame.image // 2, truth, self.classes, 1.0))

    def _put(self, name: str, picture: np.ndarray) -> None:
        height = max(1, round(picture.shape[0] * WIDTH / picture.shape[1]))
        self.pictures[name] = cv2.imencode('.jpg', fit(picture, (height, WIDTH)), JPEG)[1].tobytes()


class Filmstrip:
    """Keeps every `stride`-th frame that is offered; the stride doubles whenever too many are held."""

    def __init__(self, classes: ClassSet) -> None:
        self._classes = classes
        self._held: dict[int, Sample] = {}  # by number among all that were offered
        self._stride = 1
        self._offered = 0

    def offer(self, title: str, frame: Frame) -> Sample | None:
        """A sample to add pictures to, if this frame is one to keep."""
        number, self._offered = self._offered, self._offered + 1
        if number % self._stride:
            return None
        if len(self._held) == 2 * MOST:
            self._stride *= 2
            self._held = {n: sample for n, sample in self._held.items() if n % self._stride == 0}
            if number % self._stride:
                return None
        sample = Sample(title, self._classes)
        sample.add_frame(frame)
        self._held[number] = sample
        return sample

    def samples(self) -> list[Sample]:
        """At most MOST samples, evenly spread."""
        held = list(self._held.values())
        return held[:: -(-len(held) // MOST)] if held else []

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything held, by name."""
        arrays = {'strip': np.array([self._stride, self._offered])}
        for number, sample in self._held.items():
            arrays[f'{number}/title'] = np.frombuffer(os.fsencode(sample.title), np.uint8)
            for name, data in sample.pictures.items():
                arrays[f'{number}/{name}'] = np.frombuffer(data, np.uint8)
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes up what `arrays` gave."""
        self._stride, self._offered = (int(value) for value in arrays['strip'])
        self._held = {}
        for path, data in arrays.items():
            number, _, name = path.partition('/')
            if name == 'title':
                self._held[int(number)] = Sample(os.fsdecode(data.tobytes()), self._classes)
            elif name:
                self._held[int(number)].pictures[name] = data.tobytes()
