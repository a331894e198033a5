"""Protocols: which frames are key frames, and which are scored.

`DistanceProtocol` is that of the papers (EVSS sec. 8.1, DAVSS): the key frame lies d frames before the
labelled one, and its scores are carried frame by frame. `DeploymentProtocol` is what a robot sees: a key
frame every n frames over the whole clip, every labelled frame scored.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import cv2
import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import Frame, Segmentation
from vss_ros.core.metrics import TemporalConsistency
from vss_ros.core.settings import StreamSettings
from vss_ros.evaluation.filmstrip import Filmstrip
from vss_ros.evaluation.scores import Scores, percent, total
from vss_ros.evaluation.subjects import MODEL, Stream, Subject

FLOW_SOURCE = 'DIS optical flow (OpenCV, medium preset), frame t to t - 1, full resolution'


class ScoringProtocol(Protocol):
    """Takes the frames of one clip after the other; adds pictures to its film, if it has one."""

    name: str
    film: Filmstrip | None

    @property
    def context(self) -> int | None:
        """How many frames before a labelled one are needed; None: all of the clip."""
        ...

    def start_clip(self, name: str) -> None: ...

    def take(self, number: int, frame: Frame) -> None: ...

    def end_clip(self) -> None: ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything counted so far, by name."""
        ...

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes up what was counted before."""
        ...

    def report(self, subject: Subject) -> dict[str, Any]: ...


class DistanceProtocol:
    """Scores at each distance from the key frame.

    All distances are scored on the same frames: the labelled ones with as many frames before them in the
    clip as the largest distance needs. A stream that starts at frame k serves every labelled frame that
    lies at one of the distances behind it, so on a clip with all frames labelled each frame starts one
    stream and no work is done twice.

    Args:
        distances: rising, 0 is the key frame itself.
        film: gets pictures at the largest distance.
    """

    name = 'distance'

    def __init__(
        self, subjects: Sequence[Subject], classes: ClassSet, distances: Sequence[int], film: Filmstrip | None
    ) -> None:
        if not distances or list(distances) != sorted(set(distances)) or distances[0] < 0:
            raise SettingsError(f'distances are {list(distances)}; give rising numbers of 0 or more')
        self.context = distances[-1]
        self.scores = {
            (subject.name, distance): Scores(classes)
            for subject in subjects
            for distance in (distances if subject.propagates else distances[:1])
        }
        self._subjects = subjects
        self.film = film
        self.start_clip('')

    def start_clip(self, name: str) -> None:
        self._clip = name
        self._recent: deque[Frame] = deque(maxlen=self.context + 1)
        self._number = -1  # of the newest of the recent frames
        self._chains: dict[tuple[str, int], _Chain] = {}  # by subject and number of the key frame

    def take(self, number: int, frame: Frame) -> None:
        if number != self._number + 1:
            self.start_clip(self._clip)
        self._recent.append(frame)
        self._number = number
        if frame.truth is None or len(self._recent) <= self.context:
            return
        self._chains = {key: chain for key, chain in self._chains.items() if key[1] >= number - self.context}
        sample = None if self.film is None else self.film.offer(f'{self._clip}, frame {number}', frame)
        for subject in self._subjects:
            for distance in self._distances_of(subject):
                chain, segmentation = self._advance(subject, number - distance)
                warped = chain.warped_mask(frame.size) if subject.kind == MODEL and distance else None
                self.scores[subject.name, distance].update(frame.truth, segmentation, warped)
            if sample is not None:
                sample.add(subject.name, frame, segmentation)

    def end_clip(self) -> None:
        self.start_clip('')

    def arrays(self) -> dict[str, np.ndarray]:
        return _flat(self.scores)

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        for (name, distance), part in _parts(arrays).items():
            self.scores[name, distance].add(part)

    def report(self, subject: Subject) -> dict[str, Any]:
        return {
            str(distance): {
                **self.scores[subject.name, distance].report(),
                'gmac_per_frame': subject.mean_gmacs(distance),
            }
            for distance in self._distances_of(subject)
        }

    def _distances_of(self, subject: Subject) -> list[int]:
        return [distance for name, distance in self.scores if name == subject.name]

    def _advance(self, subject: Subject, key_number: int) -> tuple[_Chain, Segmentation]:
        """Brings the stream that began at a frame up to the newest one."""
        key = subject.name, key_number
        if key not in self._chains:
            self._chains[key] = _Chain(subject.stream(interval=self.context + 1), key_number)
        chain = self._chains[key]
        oldest = self._number - len(self._recent) + 1
        return chain, chain.advance(list(self._recent)[chain.next_number - oldest :])


class _Chain:
    """One stream from its key frame on."""

    def __init__(self, stream: Stream, key_number: int) -> None:
        self._stream = stream
        self.next_number = key_number
        self.warped_mask = stream.warped_mask

    def advance(self, frames: Sequence[Frame]) -> Segmentation:
        for frame in frames:
            segmentation = self._stream.step(frame)
        self.next_number += len(frames)
        return segmentation


class DeploymentProtocol:
    """Scores every labelled frame of a stream with a key frame every `interval` frames, by age, and TC.

    The flow that warps masks for TC is computed once per frame and is the same for all subjects.
    """

    name = 'deployment'
    context: int | None = None

    def __init__(
        self, subjects: Sequence[Subject], classes: ClassSet, interval: int, film: Filmstrip | None
    ) -> None:
        StreamSettings(interval)  # refuses intervals below 1
        self.interval = interval
        self.scores: dict[tuple[str, int], Scores] = defaultdict(lambda: Scores(classes))
        self.consistency = {subject.name: TemporalConsistency(len(classes)) for subject in subjects}
        self._subjects = subjects
        self._classes = classes
        self.film = film
        self._flow = _BackwardFlow()
        self._streams: dict[str, Stream] = {}

    def start_clip(self, name: str) -> None:
        self._clip = name
        self._flow = _BackwardFlow()
        self._streams = {subject.name: subject.stream(self.interval) for subject in self._subjects}
        for consistency in self.consistency.values():
            consistency.start_clip()

    def take(self, number: int, frame: Frame) -> None:
        flow = self._flow.update(frame.image)
        sample = None
        if self.film is not None and frame.truth is not None:
            sample = self.film.offer(f'{self._clip}, frame {number}', frame)
        for subject in self._subjects:
            stream = self._streams[subject.name]
            segmentation = stream.step(frame)
            self.consistency[subject.name].update(segmentation.mask, flow)
            if frame.truth is not None:
                warped = stream.warped_mask(frame.size) if subject.kind == MODEL else None
                self.scores[subject.name, segmentation.age_frames].update(frame.truth, segmentation, warped)
            if sample is not None:
                sample.add(subject.name, frame, segmentation)

    def end_clip(self) -> None:
        for consistency in self.consistency.values():
            consistency.end_clip()

    def arrays(self) -> dict[str, np.ndarray]:
        consistency = {f'{name}/-1/tc': measure.counts for name, measure in self.consistency.items()}
        return _flat(self.scores) | consistency

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        for (name, age), part in _parts(arrays).items():
            if 'tc' in part:
                self.consistency[name].counts += part['tc']
            else:
                self.scores[name, age].add(part)

    def report(self, subject: Subject) -> dict[str, Any]:
        by_age = {age: scores for (name, age), scores in sorted(self.scores.items()) if name == subject.name}
        kinds = {
            'all': list(by_age.values()),
            'key': [scores for age, scores in by_age.items() if age == 0],
            'propagated': [scores for age, scores in by_age.items() if age > 0],
        }
        return {
            'key_frame_interval': self.interval if subject.propagates else 1,
            'gmac_per_frame': subject.mean_gmacs(self.interval - 1),
            'temporal_consistency_percent': percent(self.consistency[subject.name].mean()),
            **{kind: total(self._classes, parts).report() for kind, parts in kinds.items() if parts},
            'by_age': {str(age): scores.report() for age, scores in by_age.items()},
        }


class _BackwardFlow:
    """FLOW_SOURCE from each image to the one before."""

    def __init__(self) -> None:
        self._dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._previous: np.ndarray | None = None

    def update(self, image: np.ndarray) -> np.ndarray | None:
        """float32 (H, W, 2), pixels, x then y; None on the first image of its size."""
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        previous, self._previous = self._previous, grey
        if previous is None or previous.shape != grey.shape:
            return None
        return self._dis.calc(grey, previous, None)


def _flat(scores: Mapping[tuple[str, int], Scores]) -> dict[str, np.ndarray]:
    """Counts by `subject/number/measure`."""
    return {
        f'{name}/{number}/{measure}': counts
        for (name, number), part in scores.items()
        for measure, counts in part.arrays().items()
    }


def _parts(arrays: Mapping[str, np.ndarray]) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """The reverse of `_flat`."""
    parts: dict[tuple[str, int], dict[str, np.ndarray]] = defaultdict(dict)
    for path, counts in arrays.items():
        name, number, measure = path.rsplit('/', 2)
        parts[name, int(number)][measure] = counts
    return parts
