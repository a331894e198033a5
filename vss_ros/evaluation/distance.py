"""Protocol `distance`, that of the papers: the key frame lies d frames before the labelled one.

From the key frame on, frames are propagated one by one (EVSS's validation script, DAVSS's protocol).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import Answer, Frame, Segmentation
from vss_ros.core.stream.resets import why_unrelated
from vss_ros.evaluation.filmstrip import Filmstrip
from vss_ros.evaluation.protocols import flat, parts
from vss_ros.evaluation.scores import Scores
from vss_ros.evaluation.subjects import Stream, Subject


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
                warped = chain.warped_mask(frame.size) if subject.corrects and distance else None
                self.scores[subject.name, distance].update(frame.truth, segmentation, warped)
            if sample is not None:
                sample.add(subject.name, frame, segmentation)

    def arrays(self) -> dict[str, np.ndarray]:
        return flat(self.scores)

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        for (name, distance), part in parts(arrays).items():
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
