"""Masks decided on the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vss_ros.evaluation.deciding import decide


@pytest.mark.parametrize('decision', ['full', 'half', 'quarter'])
@pytest.mark.parametrize('align_corners', [False, True])
def test_deciding_on_the_host_is_deciding_in_the_graph(subjects, decision, align_corners):
    torch = pytest.importorskip('torch')
    from vss_ros.methods.blocks.decide import decide as decide_in_graph

    scores = torch.randn(1, 5, 16, 24, generator=torch.Generator().manual_seed(0))
    expected = decide_in_graph(scores, (64, 96), decision, align_corners)
    options = {'decision': decision, 'align_corners': align_corners}
    mask, confidence = decide(scores[0].numpy(), replace(subjects[0].model, options=options))
    assert np.mean(mask != expected['mask'][0].numpy()) < 1e-3  # ties of the last bit
    difference = confidence.astype(int) - expected['confidence'][0].numpy()
    assert np.abs(difference).max() <= 1
