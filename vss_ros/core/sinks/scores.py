"""Compares masks with the truth, where the source knows it."""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from vss_ros.core.classes import ClassSet
from vss_ros.core.files.drafts import Draft
from vss_ros.core.frame import Frame, Segmentation
from vss_ros.core.metrics import ConfusionMatrix, TruthIds
from vss_ros.core.resize import fit_labels

_log = logging.getLogger(__name__)


class ScoreSink:
    """Collects confusion matrices over all frames with truth: of all of them, and by age.

    Args:
        path: JSON file written on close; None keeps the scores in memory.

    Attributes:
        total: over all frames.
        by_age: over the frames of each age; 0 are the key frames.
        frames: how many had truth.
        truth_ids: of all of them.

    Raises:
        SettingsError: the file exists and may not be replaced.
    """

    def __init__(self, classes: ClassSet, path: Path | None = None, overwrite: bool = False) -> None:
        self.total = ConfusionMatrix(len(classes))
        self.by_age: dict[int, ConfusionMatrix] = defaultdict(lambda: ConfusionMatrix(len(classes)))
        self.frames = 0
        self.truth_ids = TruthIds(classes)
        self._classes = classes
        # Opened at the start: that it cannot be written must not be found out at the end of a long drive.
        self._draft = None if path is None else Draft(path, overwrite)

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        if frame.truth is None:
            return
        mask = fit_labels(segmentation.mask, frame.size)
        self.total.update(frame.truth, mask)
        self.by_age[segmentation.age_frames].update(frame.truth, mask)
        self.truth_ids.update(frame.truth)
        self.frames += 1

    def report(self) -> dict[str, Any]:
        """The scores as they are written: percentages, None where there is nothing to score."""
        return {
            'frames': self.frames,
            'miou_percent': _percent(self.total.miou()),
            'iou_percent': {
                name: _percent(iou)
                for name, iou in zip(self._classes.names, self.total.iou().tolist(), strict=True)
            },
            'miou_percent_by_age': {
                str(age): _percent(matrix.miou()) for age, matrix in sorted(self.by_age.items())
            },
        }

    def close(self) -> None:
        if self._draft is not None:
            if not self.frames:
                _log.warning('%s: no frame had a label; give --labels or --mask-topic', self._draft.target)
            self._draft.path.write_text(json.dumps(self.report(), indent=2) + '\n')
            self._draft.publish()

    def discard(self) -> None:
        if self._draft is not None:
            self._draft.discard()


def _percent(share: float) -> float | None:
    return None if math.isnan(share) else round(100 * share, 2)
