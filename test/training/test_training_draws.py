"""What is drawn for one purpose tells nothing of what is drawn for another."""

from __future__ import annotations

from itertools import product

import numpy as np

from vss_ros.methods import build_method
from vss_ros.training.clip_sources import ClipLibrary
from vss_ros.training.clips import Clip
from vss_ros.training.draws import ASIDE, JUDGED, MEMORY, SAMPLE, generator
from vss_ros.training.stages.correction import CorrectionSettings, CorrectionStage


def test_no_two_purposes_share_a_generator():
    first = [
        generator(purpose, *numbers).integers(1 << 62)
        for purpose, count in ((SAMPLE, 3), (JUDGED, 2), (ASIDE, 2), (MEMORY, 2))
        for numbers in product(range(4), repeat=count)
    ]
    assert len(set(first)) == len(first)


def test_which_frames_are_judged_and_each_sample_are_drawn_by_generators_of_their_own(monkeypatch):
    clip = Clip(np.zeros((4, 32, 32, 3), np.uint8), np.zeros((4, 32, 32), np.uint8))
    sampling = CorrectionSettings(batch=3, frames=4, judged=2, recolour=False)
    library = ClipLibrary([clip], 32, 32, recoloured=False)
    method = build_method('evss-lite', 11, {})
    stage = CorrectionStage(method, [(library, 1.0)], [], np.full(11, 1 / 11), sampling)
    begun, default_rng = [], np.random.default_rng

    def watched(seed):
        begun.append(tuple(np.random.SeedSequence(seed).generate_state(2)))
        return default_rng(seed)

    monkeypatch.setattr(np.random, 'default_rng', watched)
    for step in range(3):
        stage.batch(step)
    assert len(set(begun)) == len(begun) == 3 * (3 + 1)
