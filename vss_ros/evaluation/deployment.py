"""Protocol `deployment`, what a robot sees: a key frame every n frames, every labelled frame scored."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.frame import Answer, Frame
from vss_ros.core.motion.dis import extended
from vss_ros.core.settings import StreamSettings
from vss_ros.core.stream.resets import why_unrelated
from vss_ros.evaluation.consistency import TemporalConsistency
from vss_ros.evaluation.filmstrip import Filmstrip, Sample
from vss_ros.evaluation.protocols import flat, parts, phase_of
from vss_ros.evaluation.scores import Scores, percent, total
from vss_ros.evaluation.subjects import Stream, Subject

FLOW_SOURCE = 'DIS optical flow (OpenCV, medium preset), frame t to t - 1, full resolution'
LEAST_SIDE = 16  # pixels; the preset matches patches of 8 at half the size, and crashes where they do not fit


class _Taken(NamedTuple):
    """A frame and what is needed once it is answered: the flow to the frame before, and pictures to fill."""

    frame: Frame
    flow: np.ndarray | None
    sample: Sample | None


class DeploymentProtocol:
    """Scores every labelled frame of a stream with a key frame every `interval` frames, by age, and TC.

    Where nothing can be carried from a frame to the next one, new streams begin, and for TC another clip.

    What a frame costs is counted from the graphs that really ran, for key frames in the background too that
    the end of the stream came before.

    The flow that warps masks for TC is computed once per frame and is the same for all subjects.

    Args:
        background_delay: frames until a key frame takes effect, because it is computed in the background;
            0: in the foreground.
    """

    name = 'deployment'
    context: int | None = None

    def __init__(
        self,
        subjects: Sequence[Subject],
        classes: ClassSet,
        interval: int,
        film: Filmstrip | None,
        background_delay: int = 0,
    ) -> None:
        # refuses intervals below 1 and the like
        StreamSettings(interval, background_delay_frames=background_delay)
        self.interval = interval
        self.background_delay = background_delay
        self.following = max(subject.model.delay_frames for subject in subjects)
        self.scores: dict[tuple[str, int], Scores] = defaultdict(lambda: Scores(classes))
        self.consistency = {subject.name: TemporalConsistency(len(classes)) for subject in subjects}
        self.frames = Counter[str]()  # that were answered, by subject
        self.runs = {subject.name: Counter[str]() for subject in subjects}  # of each graph
        self._subjects = subjects
        self._classes = classes
        self.film = film
        self._flow = _BackwardFlow()
        self._taken: deque[_Taken] = deque(maxlen=self.following + 1)
        self._streams: dict[str, Stream] = {}

    def start_clip(self, name: str, number: int = 0) -> None:
        self._clip = name
        self._until_key = phase_of(number, self.interval)
        self._begin()

    def take(self, number: int, frame: Frame) -> None:
        if self._taken and why_unrelated(self._taken[-1].frame, frame):
            self.end_clip()
            self._begin()
        flow = self._flow.update(frame.image)
        sample = None
        if self.film is not None and frame.truth is not None:
            sample = self.film.offer(f'{self._clip}, frame {number}', frame)
        self._taken.append(_Taken(frame, flow, sample))
        for subject in self._subjects:
            if self._until_key == 0:
                self._streams[subject.name].request_key_frame()
            self._count(subject, self._streams[subject.name].answers(frame))
        self._until_key -= 1

    def end_clip(self) -> None:
        for subject in self._subjects:
            stream = self._streams[subject.name]
            self._count(subject, stream.flush())
            stream.close()
            self.consistency[subject.name].end_clip()

    def _begin(self) -> None:
        self._flow = _BackwardFlow()
        self._taken.clear()
        self._streams = {
            subject.name: subject.stream(self.interval, self.background_delay, self.runs[subject.name])
            for subject in self._subjects
        }
        for consistency in self.consistency.values():
            consistency.start_clip()

    def _count(self, subject: Subject, answers: Iterable[Answer]) -> None:
        for frame, segmentation in answers:
            self.frames[subject.name] += 1
            _, flow, sample = next(taken for taken in self._taken if taken.frame is frame)
            self.consistency[subject.name].update(segmentation.mask, flow)
            if frame.truth is not None:
                stream = self._streams[subject.name]
                warped = stream.warped_mask(frame.size) if subject.corrects else None
                self.scores[subject.name, segmentation.age_frames].update(frame.truth, segmentation, warped)
            if sample is not None:
                sample.add(subject.name, frame, segmentation)

    def arrays(self) -> dict[str, np.ndarray]:
        counted = flat(self.scores)
        for subject in self._subjects:
            name = subject.name
            runs = np.array([self.runs[name][graph] for graph in subject.model.graphs], np.int64)
            counted[f'{name}/-1/tc'] = self.consistency[name].counts
            counted[f'{name}/-1/frames'] = np.array(self.frames[name])
            counted[f'{name}/-1/runs'] = runs
        return counted

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        for (name, age), part in parts(arrays).items():
            if age >= 0:
                self.scores[name, age].add(part)
                continue
            self.consistency[name].counts += part['tc']
            self.frames[name] += int(part['frames'])
            graphs = next(subject.model.graphs for subject in self._subjects if subject.name == name)
            self.runs[name].update(dict(zip(graphs, part['runs'].tolist(), strict=True)))

    def report(self, subject: Subject) -> dict[str, Any]:
        by_age = {age: scores for (name, age), scores in sorted(self.scores.items()) if name == subject.name}
        kinds = {
            'all': list(by_age.values()),
            'key': [scores for age, scores in by_age.items() if age == 0],
            'between': [scores for age, scores in by_age.items() if age > 0],
        }
        return {
            'key_frame_interval': self.interval if subject.propagates else 1,
            'background_delay_frames': self.background_delay if subject.propagates else 0,
            'gmac_per_frame': subject.gmacs_of(self.runs[subject.name], self.frames[subject.name]),
            'temporal_consistency_percent': percent(self.consistency[subject.name].mean()),
            **{kind: total(self._classes, each).report() for kind, each in kinds.items() if each},
            'by_age': {str(age): scores.report() for age, scores in by_age.items()},
        }


class _BackwardFlow:
    """FLOW_SOURCE from each image to the one before."""

    def __init__(self) -> None:
        self._dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._previous: np.ndarray | None = None

    def update(self, image: np.ndarray) -> np.ndarray | None:
        """float32 (H, W, 2), pixels, x then y; None on the first image. All have one size."""
        height, width = image.shape[:2]
        grey = extended(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), LEAST_SIDE)
        previous, self._previous = self._previous, grey
        if previous is None:
            return None
        return self._dis.calc(grey, previous, None)[:height, :width]
