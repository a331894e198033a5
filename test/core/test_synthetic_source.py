"""The source that gives synthetic streets."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from vss_ros.core.errors import SettingsError
from vss_ros.core.sources.synthetic import SyntheticSource
from vss_ros.core.synthetic import StreetClip


def test_gives_the_frames_of_the_clip_with_their_masks_as_truth():
    source, clip = SyntheticSource(5, 2, 64, 96), StreetClip(5, 2, 64, 96)
    for frame, street in zip(source, clip, strict=True):
        assert np.array_equal(frame.image, street.image)
        assert np.array_equal(frame.truth, street.mask)
        assert frame.stamp_ns == street.stamp_ns
    source.close()


def test_tells_how_many_frames_there_are():
    assert operator.length_hint(SyntheticSource(0, 3, 16, 16)) == 3


def test_refuses_what_the_clip_refuses():
    with pytest.raises(SettingsError, match='frames is 0'):
        SyntheticSource(0, 0)
