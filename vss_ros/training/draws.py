"""Random generators of stages that learn from clips: what is drawn for one purpose tells nothing of another.

The purpose stands in front of the numbers: NumPy pads seeds with zeros, so that [3, 0] is no other than [3].
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

SAMPLE, JUDGED, ASIDE, MEMORY = range(4)


def generator(purpose: int, *numbers: int) -> Generator:
    """That of a purpose and some numbers, such as the seed, the step and the index of the sample."""
    return np.random.default_rng([purpose, *numbers])
