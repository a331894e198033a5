"""What a protocol is: it says which frames are key frames, and which are scored; and what several share.

`DistanceProtocol` is that of the papers (EVSS's validation script, DAVSS): the key frame lies d frames before
the labelled one, and what it gave is propagated frame by frame. `DeploymentProtocol` is what a robot sees:
a key frame every n frames over the whole clip, every labelled frame scored. `ScheduleProtocol` does the same
for several schedules of key frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from vss_ros.core.frame import Frame
from vss_ros.evaluation.filmstrip import Filmstrip
from vss_ros.evaluation.subjects import Subject


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


class Counted(Protocol):
    """What was counted for one number of a subject: a distance, an age, a schedule."""

    def arrays(self) -> dict[str, np.ndarray]: ...


def phase_of(clip: int, interval: int) -> int:
    """From which frame of a clip on every `interval`-th is a key frame, beside the first one.

    It is another in each clip. In many data sets labels come at regular distances, or one in each clip: were
    the phase always the same, they would meet frames of one age only.
    """
    return clip % interval


def flat(counted: Mapping[tuple[str, int], Counted]) -> dict[str, np.ndarray]:
    """Counts by `subject/number/measure`."""
    return {
        f'{name}/{number}/{measure}': counts
        for (name, number), part in counted.items()
        for measure, counts in part.arrays().items()
    }


def parts(arrays: Mapping[str, np.ndarray]) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """The reverse of `flat`."""
    found: dict[tuple[str, int], dict[str, np.ndarray]] = defaultdict(dict)
    for path, counts in arrays.items():
        name, number, measure = path.rsplit('/', 2)
        found[name, int(number)][measure] = counts
    return found
