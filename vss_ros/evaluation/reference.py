"""Truth where nobody labelled: the masks of a reference model that computes every frame in full."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from vss_ros.core.frame import Answer, Frame
from vss_ros.core.resize import fit_labels
from vss_ros.evaluation.clips import Clip
from vss_ros.evaluation.data import DataSet
from vss_ros.evaluation.subjects import Subject


def judged_by(data: DataSet, reference: Subject) -> DataSet:
    """The same clips with the reference's masks for the truth of every frame, whether or not it has labels.

    Args:
        reference: computes every frame in full.
    """
    return DataSet(
        f'{data.name}, against {reference.model.name}',
        data.layout,
        None,
        [ReferenceClip(clip, reference) for clip in data.clips],
        truth=f'masks of {reference.model.name}, every frame in full',
    )


class ReferenceClip:
    """A clip of which every frame counts as labelled, by the reference."""

    def __init__(self, clip: Clip, reference: Subject) -> None:
        self.name = clip.name
        self._clip = clip
        self._reference = reference

    def __length_hint__(self) -> int:
        return operator.length_hint(self._clip)

    def frames(self, before: int | None, after: int = 0) -> Iterator[tuple[int, Frame]]:
        """All frames: each is scored, so none may be left out. See `Clip`."""
        stream = self._reference.stream(interval=1)
        unanswered: deque[int] = deque()
        for number, frame in self._clip.frames(None):
            unanswered.append(number)
            for answer in stream.answers(frame):
                yield unanswered.popleft(), _with_truth(answer)
        for answer in stream.flush():
            yield unanswered.popleft(), _with_truth(answer)


def _with_truth(answer: Answer) -> Frame:
    frame, segmentation = answer
    return replace(frame, truth=fit_labels(segmentation.mask, frame.size))
