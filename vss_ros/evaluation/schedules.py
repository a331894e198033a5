"""Protocol `schedules`: accuracy and cost of the same models under several schedules of key frames.

Every clip is run as a robot would run it, once for each schedule, and every labelled frame is scored. What a
frame costs is counted from the graphs that really ran for it, those of frames that were given up half way for
a key frame included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import Frame
from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.core.open_segmenter import Segmenter, make_segmenter
from vss_ros.core.settings import SCHEDULE, StreamSettings
from vss_ros.evaluation.filmstrip import Filmstrip
from vss_ros.evaluation.protocols import flat, parts, phase_of
from vss_ros.evaluation.recording import Counting
from vss_ros.evaluation.scores import percent
from vss_ros.evaluation.subjects import MODEL, Subject


class ScheduleProtocol:
    """Scores models that propagate, and give their results in time, under each of the schedules.

    Args:
        schedules: of their settings those of SCHEDULE count, the others are those of the subject.
    """

    name = 'schedules'
    context: int | None = None
    following = 0
    film: Filmstrip | None = None

    def __init__(
        self, subjects: Sequence[Subject], classes: ClassSet, schedules: Sequence[StreamSettings]
    ) -> None:
        if not schedules:
            raise SettingsError('there is no schedule to score; give --intervals or --thresholds')
        self._schedules = schedules
        self._subjects = {subject.name: subject for subject in subjects if _is_scheduled(subject)}
        if not self._subjects:
            raise SettingsError('no model here has key frames to schedule; leave out --protocol schedules')
        self._tallies = {
            (name, number): _Tally(ConfusionMatrix(len(classes)), tuple(subject.model.graphs))
            for name, subject in self._subjects.items()
            for number in range(len(schedules))
        }
        self._streams: dict[tuple[str, int], Segmenter] = {}

    def start_clip(self, name: str, number: int = 0) -> None:
        self._clip, self._frame = number, 0
        for (row, column), tally in self._tallies.items():
            subject, schedule = self._subjects[row], self._schedules[column]
            settings = replace(subject.settings, **{key: getattr(schedule, key) for key in SCHEDULE})
            engine = Counting(subject.engine, tally.runs)
            self._streams[row, column] = make_segmenter(subject.model, engine, settings)

    def take(self, number: int, frame: Frame) -> None:
        for key, tally in self._tallies.items():
            schedule = self._schedules[key[1]]
            if schedule.scheduler == 'fixed' and self._frame == phase_of(
                self._clip, schedule.key_frame_interval
            ):
                self._streams[key].request_key_frame()
            segmentation = self._streams[key].step(frame)
            are_key = segmentation.key_regions or (segmentation.is_key,)
            tally.frames += (1, sum(are_key) / len(are_key), frame.truth is not None)
            if frame.truth is not None:
                tally.confusion.update(frame.truth, segmentation.mask)
        self._frame += 1

    def end_clip(self) -> None:
        self._streams = {}

    def arrays(self) -> dict[str, np.ndarray]:
        return flat(self._tallies)

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        for key, part in parts(arrays).items():
            self._tallies[key].add(part)

    def report(self, subject: Subject) -> dict[str, Any]:
        """One entry for each schedule by its name, `every 5` or `adaptive 0.9`; none where there are none."""
        if subject.name not in self._subjects:
            return {}
        found = {}
        for number, settings in enumerate(self._schedules):
            tally = self._tallies[subject.name, number]
            frames, keys, labelled = tally.frames
            is_fixed = settings.scheduler == 'fixed'
            found[name_of(settings)] = {
                'scheduler': settings.scheduler,
                'key_frame_interval': settings.key_frame_interval if is_fixed else None,
                'key_frame_threshold': None if is_fixed else settings.key_frame_threshold,
                'frames': int(labelled),
                'key_share_percent': percent(keys / frames if frames else float('nan')),
                'gmac_per_frame': subject.gmacs_of(tally.runs, int(frames)),
                'miou_percent': percent(tally.confusion.miou()),
            }
        return found


def name_of(settings: StreamSettings) -> str:
    """A schedule as it is called in reports."""
    if settings.scheduler == 'fixed':
        return f'every {settings.key_frame_interval}'
    return f'adaptive {settings.key_frame_threshold:g}'


@dataclass
class _Tally:
    """What was counted of one model under one schedule."""

    confusion: ConfusionMatrix
    graphs: tuple[str, ...]  # of the model, in the order of `arrays`

    def __post_init__(self) -> None:
        self.frames = np.zeros(3)  # all; key frames, of one in regions those that are key; labelled
        self.runs: Counter[str] = Counter()  # of each graph

    def arrays(self) -> dict[str, np.ndarray]:
        runs = np.array([self.runs[graph] for graph in self.graphs], np.int64)
        return {'confusion': self.confusion.counts, 'frames': self.frames, 'runs': runs}

    def add(self, part: Mapping[str, np.ndarray]) -> None:
        self.confusion.counts += part['confusion']
        self.frames += part['frames']
        self.runs.update(dict(zip(self.graphs, part['runs'].tolist(), strict=True)))


def _is_scheduled(subject: Subject) -> bool:
    model = subject.model
    return subject.kind == MODEL and not model.computes_all_in_full and not model.delay_frames
