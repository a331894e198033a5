"""Cross-validation: what is fitted is judged on clips that it was not fitted to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

FOLDS = 5


def left_out(clip: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each fold, which samples are fitted to, bool (n,), and the places of those that are judged, (m,).

    Samples of one clip are left out together. With one clip the folds are stretches of it, one after another.

    Args:
        clip: number of the clip that each sample came from, (n,), samples in order.
    """
    groups = clip
    if len(np.unique(groups)) < 2:
        groups = np.arange(len(groups)) * FOLDS // len(groups)
    fold = np.searchsorted(np.unique(groups), groups) % FOLDS
    for number in np.unique(fold):
        yield fold != number, np.flatnonzero(fold == number)
