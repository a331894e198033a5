"""Scores at each distance from the key frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from street_clips import StreetClips

from vss_ros.core.errors import SettingsError
from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.evaluation.distance import DistanceProtocol
from vss_ros.evaluation.evaluate import evaluate


def scored_by_hand(subject, frames, distance, labelled):
    """One fresh stream per labelled frame, as the papers describe it."""
    matrix = ConfusionMatrix(len(subject.model.classes))
    for number in labelled:
        stream = subject.stream(interval=100)
        for frame in frames[number - distance : number + 1]:
            [(_, segmentation)] = stream.answers(frame)
        assert segmentation.age_frames == distance
        matrix.update(frames[number].truth, segmentation.mask)
    return matrix.counts


@pytest.mark.parametrize('labelled', [None, {5, 6, 9}], ids=['all labelled', 'some labelled'])
def test_scores_at_a_distance_are_those_of_a_stream_begun_that_far_before(subjects, labelled):
    clip, distances = StreetClips(10, labelled), [0, 1, 4]
    protocol = DistanceProtocol(subjects[:2], subjects[0].model.classes, distances, None)
    evaluate([clip], [protocol])
    scored = sorted(labelled) if labelled else list(range(4, 10))
    for subject in subjects[:2]:
        for distance in distances:
            found = protocol.scores[subject.name, distance]
            assert found.frames[0] == len(scored)
            expected = scored_by_hand(subject, clip.all, distance, scored)
            assert np.array_equal(found.confusion.counts, expected)


def test_every_distance_is_scored_on_the_same_frames(subjects):
    protocol = DistanceProtocol(subjects, subjects[0].model.classes, [0, 2, 3], None)
    evaluate([StreetClips(5), StreetClips(2), StreetClips(6)], [protocol])
    assert {scores.frames[0] for scores in protocol.scores.values()} == {2 + 0 + 3}


def test_of_a_long_clip_no_more_frames_and_streams_are_kept_than_the_largest_distance_needs(subjects):
    protocol = DistanceProtocol(subjects[:1], subjects[0].model.classes, [0, 2], None)
    for number, frame in StreetClips(8).frames(before=2):
        protocol.take(number, frame)
        assert len(protocol._frames) <= 3
        assert len(protocol._chains) <= 3


def test_a_subject_that_does_not_propagate_is_scored_once(subjects):
    protocol = DistanceProtocol(subjects, subjects[0].model.classes, [0, 2], None)
    assert [distance for name, distance in protocol.scores if name == subjects[2].name] == [0]


def test_frames_that_were_left_out_begin_a_new_stretch(subjects):
    protocol = DistanceProtocol(subjects[:1], subjects[0].model.classes, [0, 2], None)
    clip = StreetClips(8)
    protocol.start_clip('street')
    for number in (0, 1, 5, 6, 7):
        protocol.take(number, clip.all[number])
    assert protocol.scores[subjects[0].name, 2].frames[0] == 1  # frame 7 alone has two before it


@pytest.mark.parametrize('change', [{'camera': 'rear'}, {'encoding': 'mono8'}, {'stamp_ns': 0}])
def test_frames_that_nothing_is_carried_between_are_not_scored_as_propagated(subjects, change):
    protocol = DistanceProtocol(subjects[:1], subjects[0].model.classes, [0, 2], None)
    clip = StreetClips(8)
    protocol.start_clip('street')
    for number, frame in enumerate(clip.all):
        protocol.take(number, replace(frame, **change) if number == 4 else frame)
    others = 1 if 'stamp_ns' in change else 0  # after a stamp that went back they rise again
    assert protocol.scores[subjects[0].name, 2].frames[0] == 2 + 1 + others


def test_a_key_frame_is_not_corrected(subjects):
    protocol = DistanceProtocol(subjects[:1], subjects[0].model.classes, [0, 1], None)
    evaluate([StreetClips(3)], [protocol])
    key, propagated = (protocol.scores[subjects[0].name, distance] for distance in (0, 1))
    assert not key.corrections.counts.any()
    assert propagated.corrections.counts.sum() == propagated.confusion.counts.sum() > 0
    assert propagated.ranking.counts.sum() > 0
    assert propagated.corrected_labels.counts[1] == 2


@pytest.mark.parametrize('distances', [[], [3, 1], [1, 1], [-1, 2]])
def test_distances_must_rise_from_zero_or_more(subjects, distances):
    with pytest.raises(SettingsError, match='rising numbers'):
        DistanceProtocol(subjects, subjects[0].model.classes, distances, None)
