"""Each source gives its share of the samples."""

from __future__ import annotations

import numpy as np

from vss_ros.training.shares import Shares


def test_sources_are_picked_as_often_as_their_shares_say():
    shares = Shares([('videos', 3), ('stills', 1), ('streets', 0)])
    rng = np.random.default_rng(0)
    picked = [shares.pick(rng) for _ in range(2000)]
    assert abs(picked.count('videos') / 2000 - 0.75) < 0.03
    assert picked.count('streets') == 0
    assert shares.largest == 'videos'


def test_a_pick_draws_once():
    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    Shares([('videos', 1.0), ('stills', 1.0)]).pick(rng)
    other.random()
    assert rng.random() == other.random()
