"""Clips of a synthetic street, of which only some frames are labelled."""

from __future__ import annotations

from dataclasses import replace

from vss_ros.core.sources.synthetic import SyntheticSource

SIZE = {'height': 64, 'width': 96}


class StreetClips:
    """A synthetic street of which only some frames are labelled."""

    def __init__(self, frames, labelled=None, seed=7):
        self.name = f'street {seed}'
        self.all = [
            frame if labelled is None or number in labelled else without_truth(frame)
            for number, frame in enumerate(SyntheticSource(seed, frames, **SIZE))
        ]

    def frames(self, before, after=0):
        return iter(enumerate(self.all))


def without_truth(frame):
    return replace(frame, truth=None)
