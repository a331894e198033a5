"""Protocols: which frames are key frames, and which are scored.

`DistanceProtocol` is that of the papers (EVSS sec. 8.1, DAVSS): the key frame lies d frames before the
labelled one, and its scores are carried frame by frame. `DeploymentProtocol` is what a robot sees: a key
frame every n frames over the whole clip, every labelled frame scored.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import Answer, Frame, Segmentation
from vss_ros.core.metrics import TemporalConsistency
from vss_ros.core.motion.dis import extended
from vss_ros.core.settings import StreamSettings
from vss_ros.core.stream.resets import why_unrelated
from vss_ros.evaluation.filmstrip import Filmstrip, Sample
from vss_ros.evaluation.scores import Scores, percent, total
from vss_ros.evaluation.subjects import MODEL, Stream, Subject

FLOW_SOURCE = 'DIS optical flow (OpenCV, medium preset), frame t to t - 1, full resolution'
LEAST_SIDE = 16  # pixels; the preset matches patches of 8 at half the size, and crashes where they do not fit


class ScoringProtocol(Protocol):
    """Takes the frames of one clip after the other; adds pictures to its film, if it has one."""

    name: str
    film: Filmstrip | None
    following: int  # frames after a labelled one that are needed

    @property
    def context(self) -> int | None:
        """How many frames before a labelled one are needed; None: all of the clip."""
        ...

    def start_clip(self, name: str, number: int = 0) -> None:
        """Starts new streams; what was counted stays.

        Args:
            name: of the clip, as pictures of it are labelled.
            number: of the clip in the data, from 0; see `phase_of`.
        """
        ...

    def take(self, number: int, frame: Frame) -> None:
        """Takes the next frame of the clip, and scores what is known then.

        Args:
            number: of the frame in the clip, rising; a gap means that frames nobody needs were left out.
            frame: image uint8 (H, W, 3) BGR; where it is labelled its truth, uint8 (H, W) class ids, 255 =
                ignore.

        Raises:
            EngineError: a model cannot be run. What was counted of this clip is not whole then.
        """
        ...

    def end_clip(self) -> None:
        """Scores the frames that still wait for later ones.

        Raises:
            EngineError: see `take`.
        """
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything counted so far, by name."""
        ...

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes up what was counted before."""
        ...

    def report(self, subject: Subject) -> dict[str, Any]:
        """The scores of one subject so far, as plain values for JSON: see `Scores.report`.

        Percentages are 0 to 100, `gmac_per_frame` is in 1e9 multiply-adds; None stands where there was
        nothing to score.
        """
        ...


class DistanceProtocol:
    """Scores at each distance from the key frame.

    All distances are scored on the same frames: the labelled ones with as many frames before them in the
    clip as the largest distance needs. A stream that starts at frame k serves every labelled frame that
    lies at one of the distances behind it, so on a clip with all frames labelled each frame starts one
    stream and no work is done twice. A model whose results are late is shown the frames that it needs.

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
        self.following = max(subject.model.delay_frames for subject in subjects)
        self.scores = {
            (subject.name, distance): Scores(classes)
            for subject in subjects
            for distance in (distances if subject.propagates else distances[:1])
        }
        self._subjects = subjects
        self.film = film
        self.start_clip('')

    def start_clip(self, name: str, number: int = 0) -> None:
        self._clip = name
        self._frames: dict[int, Frame] = {}  # the last ones without a gap, by number
        self._chains: dict[tuple[str, int], _Chain] = {}  # by subject and number of the key frame

    def take(self, number: int, frame: Frame) -> None:
        previous = self._frames.get(number - 1)
        if previous is None or why_unrelated(previous, frame):
            self.end_clip()
        self._frames[number] = frame
        self._frames.pop(number - self.following - self.context - 1, None)
        self._score(number - self.following)

    def end_clip(self) -> None:
        """Scores those that wait for frames that do not come."""
        waiting = list(self._frames)[-self.following :] if self.following else []
        for number in waiting:
            self._score(number)
        self.start_clip(self._clip)

    def _score(self, number: int) -> None:
        frame = self._frames.get(number)
        if frame is None or frame.truth is None or number - self.context not in self._frames:
            return
        self._chains = {key: chain for key, chain in self._chains.items() if key[1] >= number - self.context}
        sample = None if self.film is None else self.film.offer(f'{self._clip}, frame {number}', frame)
        for subject in self._subjects:
            for distance in self._distances_of(subject):
                chain = self._chain(subject, number - distance)
                segmentation = chain.result(number, self._frames)
                warped = chain.warped_mask(frame.size) if subject.kind == MODEL and distance else None
                self.scores[subject.name, distance].update(frame.truth, segmentation, warped)
            if sample is not None:
                sample.add(subject.name, frame, segmentation)

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

    def _chain(self, subject: Subject, key_number: int) -> _Chain:
        key = subject.name, key_number
        if key not in self._chains:
            delay = subject.model.delay_frames
            self._chains[key] = _Chain(subject.stream(interval=self.context + 1), key_number, delay)
        return self._chains[key]


class _Chain:
    """One stream from its key frame on."""

    def __init__(self, stream: Stream, key_number: int, delay: int) -> None:
        self._stream = stream
        self._delay = delay
        self._next = key_number  # the frame to be seen next
        self._answered = key_number  # the frame to be answered next
        self._results: dict[int, Segmentation] = {}  # that nobody asked for yet, by number
        self.warped_mask = stream.warped_mask

    def result(self, number: int, frames: Mapping[int, Frame]) -> Segmentation:
        """What the stream makes of a frame; it sees no more frames than it needs for that.

        Args:
            number: higher than in the call before.
            frames: by number, with all from the one to be seen next.
        """
        last = min(number + self._delay, max(frames))
        for following in range(self._next, last + 1):
            self._collect(self._stream.answers(frames[following]))
        self._next = max(self._next, last + 1)
        if number >= self._answered:
            self._collect(self._stream.flush())
        result = self._results[number]
        self._results = {later: kept for later, kept in self._results.items() if later > number}
        return result

    def _collect(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            self._results[self._answered] = answer.segmentation
            self._answered += 1


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
                warped = stream.warped_mask(frame.size) if subject.kind == MODEL else None
                self.scores[subject.name, segmentation.age_frames].update(frame.truth, segmentation, warped)
            if sample is not None:
                sample.add(subject.name, frame, segmentation)

    def arrays(self) -> dict[str, np.ndarray]:
        counted = _flat(self.scores)
        for subject in self._subjects:
            name = subject.name
            runs = np.array([self.runs[name][graph] for graph in subject.model.graphs], np.int64)
            counted[f'{name}/-1/tc'] = self.consistency[name].counts
            counted[f'{name}/-1/frames'] = np.array(self.frames[name])
            counted[f'{name}/-1/runs'] = runs
        return counted

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        for (name, age), part in _parts(arrays).items():
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
            'propagated': [scores for age, scores in by_age.items() if age > 0],
        }
        return {
            'key_frame_interval': self.interval if subject.propagates else 1,
            'background_delay_frames': self.background_delay if subject.propagates else 0,
            'gmac_per_frame': subject.gmacs_of(self.runs[subject.name], self.frames[subject.name]),
            'temporal_consistency_percent': percent(self.consistency[subject.name].mean()),
            **{kind: total(self._classes, parts).report() for kind, parts in kinds.items() if parts},
            'by_age': {str(age): scores.report() for age, scores in by_age.items()},
        }


def phase_of(clip: int, interval: int) -> int:
    """From which frame of a clip on every `interval`-th is a key frame, beside the first one.

    It is another in each clip. In many data sets labels come at regular distances, or one in each clip: were
    the phase always the same, they would meet frames of one age only.
    """
    return clip % interval


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
