"""Cross-validation: what is fitted is judged on clips that it was not fitted to."""

from __future__ import annotations

import numpy as np

FOLDS = 5


def folds_of(clip: np.ndarray) -> np.ndarray:
    """The fold of each sample, 0..FOLDS - 1, (n,): samples of one clip are left out together.

    With one clip the folds are stretches of it, one after the other.

    Args:
        clip: number of the clip that each sample came from, (n,), samples in order.
    """
    groups = clip
    if len(np.unique(groups)) < 2:
        groups = np.arange(len(groups)) * FOLDS // len(groups)
    return np.searchsorted(np.unique(groups), groups) % FOLDS
