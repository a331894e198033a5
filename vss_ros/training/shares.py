"""Several sources of samples, each of which gives its share of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.random import Generator

Source = TypeVar('Source')


class Shares(Generic[Source]):
    """Sources, picked at random.

    Args:
        sources: each with its share; the shares need not add up to one.
    """

    def __init__(self, sources: Sequence[tuple[Source, float]]) -> None:
        self.sources = [source for source, _ in sources]
        self._shares = np.array([share for _, share in sources]) / sum(share for _, share in sources)

    @property
    def largest(self) -> Source:
        """The source with the largest share."""
        return self.sources[int(self._shares.argmax())]

    def pick(self, rng: Generator) -> Source:
        return self.sources[rng.choice(len(self.sources), p=self._shares)]
