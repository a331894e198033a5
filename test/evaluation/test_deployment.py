"""Scores, cost and consistency with a key frame every so many frames."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from street_clips import StreetClips

from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.evaluation.deployment import DeploymentProtocol, _BackwardFlow
from vss_ros.evaluation.evaluate import evaluate
from vss_ros.evaluation.recording import Counting
from vss_ros.evaluation.subjects import load_subjects


class Listed:
    """Frames as a clip."""

    name = 'listed'

    def __init__(self, frames):
        self.all = frames

    def frames(self, before, after=0):
        return iter(enumerate(self.all))


def test_deployment_scores_every_labelled_frame_by_its_age(subjects):
    protocol = DeploymentProtocol(subjects, subjects[0].model.classes, 3, None)
    evaluate([StreetClips(7, {0, 1, 4, 5, 6})], [protocol])
    frames = {age: scores.frames[0] for (name, age), scores in protocol.scores.items() if name == 'tiny'}
    assert frames == {0: 2, 1: 2, 2: 1}  # K P P K P P K
    report = protocol.report(subjects[0])
    assert report['all']['frames'] == 5
    assert report['key']['frames'] == 2
    assert report['between']['frames'] == 3
    assert protocol.report(subjects[2])['key']['frames'] == 5


def test_consistency_needs_no_labels(subjects):
    protocol = DeploymentProtocol(subjects[:1], subjects[0].model.classes, 3, None)
    evaluate([StreetClips(4, labelled=set())], [protocol])
    report = protocol.report(subjects[0])
    assert 0 < report['temporal_consistency_percent'] <= 100
    assert 'all' not in report


def test_every_clip_begins_with_a_key_frame(subjects):
    protocol = DeploymentProtocol(subjects[:1], subjects[0].model.classes, 100, None)
    evaluate([StreetClips(2), StreetClips(1)], [protocol])
    assert protocol.scores['tiny', 0].frames[0] == 2
    assert protocol.consistency['tiny'].counts[1] == 1


def test_labels_that_come_once_in_a_clip_meet_frames_of_every_age(subjects):
    protocol = DeploymentProtocol(subjects[:1], subjects[0].model.classes, 3, None)
    evaluate([StreetClips(7, {6}) for _ in range(6)], [protocol])
    ages = {age: scores.frames[0] for (_, age), scores in protocol.scores.items()}
    assert ages == {0: 2, 1: 2, 2: 2}


def test_the_cost_is_that_of_the_graphs_that_were_run(subjects):
    pytest.importorskip('onnx')
    protocol = DeploymentProtocol(subjects, subjects[0].model.classes, 3, None)
    evaluate([StreetClips(7), StreetClips(5)], [protocol])
    model, warp_only, per_frame = subjects
    # K P P K P P K and, in the second clip, K K P P K
    cost = (6 * model.gmacs['key'] + 6 * model.gmacs['propagated']) / 12
    assert protocol.report(model)['gmac_per_frame'] == pytest.approx(cost)
    assert protocol.report(warp_only)['gmac_per_frame'] == pytest.approx(6 * model.gmacs['key'] / 12)
    assert protocol.report(per_frame)['gmac_per_frame'] == pytest.approx(per_frame.gmacs['key'])
    again = DeploymentProtocol(subjects, subjects[0].model.classes, 3, None)
    again.add(protocol.arrays())
    assert again.report(model) == protocol.report(model)


def test_the_cost_of_key_frames_in_the_background_is_that_of_the_graphs_that_were_run(tiny_model):
    pytest.importorskip('onnx')
    settings = [EngineSettings(threads=1)]
    every_third = StreamSettings(correction_interval=3)
    [model] = load_subjects([str(tiny_model)], settings, every_third, False, False)
    protocol = DeploymentProtocol([model], model.model.classes, 5, None, background_delay=2)
    evaluate([StreetClips(13)], [protocol])
    # Due at 5, takes effect at 7; due at 10, takes effect at 12.
    runs = protocol.runs[model.name]
    assert runs['segmenter'] == 3
    assert runs['correction'] + runs['carry'] == 12
    macs = sum(model.costs[graph].macs * count for graph, count in runs.items())
    assert protocol.report(model)['gmac_per_frame'] == pytest.approx(macs / 13 / 1e9)


class Slow(Counting):
    """An engine whose second one takes long for a key frame, as on a machine that has much to do."""

    def second(self):
        second = super().second()
        second.run = lambda graph, tensors: time.sleep(0.2) or Counting.run(second, graph, tensors)
        return second


def test_a_key_frame_that_is_in_work_where_a_stream_ends_is_counted_however_long_it_takes(subjects):
    clip = StreetClips(8)  # due at 3 and 6, the latter to take effect at 9; a new stream begins at 5
    clip.all[5:] = [replace(frame, camera='rear') for frame in clip.all[5:]]
    model = subjects[0]
    runs = []
    for engine in (model.engine, Slow(model.engine, Counter())):
        protocol = DeploymentProtocol(
            [replace(model, engine=engine)], model.model.classes, 2, None, background_delay=3
        )
        threads = threading.active_count()
        evaluate([clip], [protocol])
        assert threading.active_count() == threads
        runs.append(protocol.runs[model.name])
    assert runs[0] == runs[1]
    assert runs[0]['segmenter'] == 4  # 0 and 2, 5 and 7


@pytest.mark.parametrize('change', [{'camera': 'rear'}, {'encoding': 'mono8'}, {'stamp_ns': 0}])
def test_where_nothing_is_carried_consistency_takes_it_for_another_clip(subjects, change):
    streets = [StreetClips(2, seed=seed).all for seed in (7, 8)]
    streets[1] = [replace(frame, **change) for frame in streets[1]]
    together, apart = (DeploymentProtocol(subjects[:1], subjects[0].model.classes, 9, None) for _ in range(2))
    evaluate([Listed([*streets[0], *streets[1]])], [together])
    for street in streets:
        evaluate([Listed(street)], [apart])
    found, expected = (protocol.consistency[subjects[0].name].counts for protocol in (together, apart))
    assert found[1] == 2
    assert found == pytest.approx(expected)


@pytest.mark.parametrize('size', [(1, 1), (8, 8), (11, 11), (12, 40), (8, 300)])
def test_images_too_small_for_the_flow_of_consistency_have_one_all_the_same(size):
    flow = _BackwardFlow()
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    assert flow.update(image) is None
    found = flow.update(image)
    assert found.shape == (*size, 2)
    assert np.isfinite(found).all()


def test_key_frames_in_the_background_are_scored_at_the_age_that_the_answers_have(subjects):
    protocol = DeploymentProtocol(subjects, subjects[0].model.classes, 3, None, background_delay=2)
    evaluate([StreetClips(9)], [protocol])
    for subject in subjects:
        if subject.propagates:
            ages = {
                age: scores.frames[0]
                for (name, age), scores in protocol.scores.items()
                if name == subject.name
            }
            # Frames 0 to 8: due at 3, takes effect at 5; due at 6, takes effect at 8.
            assert ages == {0: 1, 1: 1, 2: 3, 3: 2, 4: 2}
            report = protocol.report(subject)
            assert report['background_delay_frames'] == 2
            gmacs = subject.gmacs
            if gmacs is not None:
                cost = (3 * gmacs['key'] + 8 * gmacs['propagated']) / 9
                assert report['gmac_per_frame'] == pytest.approx(cost)


@pytest.mark.parametrize('shift', [(3, -2), (-4, 1)])
def test_the_flow_of_consistency_points_to_the_frame_before(shift):
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    before = cv2.resize(noise, (256, 192), interpolation=cv2.INTER_CUBIC)
    right, down = shift
    flow = _BackwardFlow()
    assert flow.update(before) is None
    found = flow.update(np.roll(before, (down, right), (0, 1)))  # what was here is so much further on
    assert np.median(found[40:-40, 40:-40], (0, 1)) == pytest.approx((-right, -down), abs=0.1)
