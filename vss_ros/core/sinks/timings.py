"""How long the frames of a run took."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from vss_ros.core.frame import Frame, Segmentation

TOTAL = 'total'
KINDS = ('key', 'mixed', 'propagated', 'carried')  # see Segmentation.kind


class TimingSink:
    """Keeps the wall time of every stage, apart for each kind of frame.

    Attributes:
        ms: kind of frame, of KINDS -> stage or `total` -> milliseconds of each frame.
    """

    def __init__(self) -> None:
        self.ms: dict[str, dict[str, list[float]]] = {kind: defaultdict(list) for kind in KINDS}

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        stages = self.ms[segmentation.kind]
        for stage, ms in segmentation.timings_ms.items():
            stages[stage].append(ms)
        stages[TOTAL].append(sum(segmentation.timings_ms.values()))

    def count(self, kind: str) -> int:
        """How many frames of this kind there were."""
        return len(self.ms[kind][TOTAL])

    def percentile(self, kind: str, percent: float, stage: str = TOTAL) -> float:
        """Milliseconds that this share of the frames stayed within; NaN if there were none."""
        values = self.ms[kind][stage]
        return float(np.percentile(values, percent)) if values else float('nan')

    def close(self) -> None:
        """Nothing is held open."""
