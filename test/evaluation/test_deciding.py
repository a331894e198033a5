"""Masks decided on the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vss_ros.core.frame import Frame
from vss_ros.evaluation.deciding import Decider, decide


@pytest.mark.parametrize('decision', ['full', 'half', 'quarter'])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(
    ('temperatures', 'age'),
    [([], 3), ([1.5, 0.8, 2.0], 0), ([1.5, 0.8, 2.0], 1), ([1.5, 0.8, 2.0], 7), ([3], 2)],
)
def test_deciding_on_the_host_is_deciding_in_the_graph(subjects, decision, align_corners, temperatures, age):
    torch = pytest.importorskip('torch')
    from vss_ros.methods.blocks.decide import decide as decide_in_graph

    scores = torch.randn(1, 5, 16, 24, generator=torch.Generator().manual_seed(0))
    temperature = torch.tensor(temperatures[min(age, len(temperatures) - 1)]) if temperatures else None
    expected = decide_in_graph(scores, (64, 96), decision, align_corners, temperature)
    options = {'decision': decision, 'align_corners': align_corners, 'temperatures': temperatures}
    mask, confidence = decide(scores[0].numpy(), replace(subjects[0].model, options=options), age)
    assert np.mean(mask != expected['mask'][0].numpy()) < 1e-3  # ties of the last bit
    difference = confidence.astype(int) - expected['confidence'][0].numpy()
    assert np.abs(difference).max() <= 1


def test_frames_that_are_only_warped_are_as_sure_as_their_age_allows(subjects, street):
    plain = subjects[1]
    model = replace(plain.model, options={**plain.model.options, 'temperatures': [1.0, 4.0, 0.5]})
    warmed = replace(plain, model=model, engine=Decider(plain.engine, model))
    streams = [subject.stream(interval=9) for subject in (plain, warmed)]
    confidences = []
    for number, image in enumerate(street[:4]):
        answers = [answer for stream in streams for answer in stream.answers(Frame(image, number * 10**8))]
        one, other = (answer.segmentation for answer in answers)
        assert np.array_equal(one.mask, other.mask)
        confidences.append((one.confidence.mean(), other.confidence.mean()))
    assert [np.sign(other - one) for one, other in confidences] == [0, -1, 1, 1]
