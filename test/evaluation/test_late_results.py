"""Models whose results are late are scored on the frames that the results belong to."""

from __future__ import annotations

import numpy as np
import pytest

from vss_ros.core.frame import Frame
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.evaluation.clips import FileClip, FrameFile
from vss_ros.evaluation.deployment import DeploymentProtocol
from vss_ros.evaluation.distance import DistanceProtocol
from vss_ros.evaluation.evaluate import evaluate
from vss_ros.evaluation.filmstrip import Filmstrip
from vss_ros.evaluation.subjects import load_subjects

SIZE = (48, 64)
FRAMES = 9


@pytest.fixture(scope='module')
def late_subjects(late_models):
    """Rows of models that are late by 1, 2 and 3 frames."""
    names = [str(folder) for folder in late_models.values()]
    return load_subjects(
        names, [EngineSettings('onnxruntime')], StreamSettings(), warp_only=False, per_frame=False
    )


def frame(number, labelled=True):
    """An image whose blue channel is its truth, and differs from that of every other frame."""
    image = np.random.default_rng(number).integers(0, 11, (*SIZE, 3), dtype=np.uint8)
    return Frame(image, number * 10**8, truth=image[..., 0] if labelled else None)


class Clip:
    """Frames by number, of which some are labelled and some left out."""

    name = 'clip'

    def __init__(self, numbers, labelled=None):
        self.all = [(number, frame(number, labelled is None or number in labelled)) for number in numbers]

    def frames(self, before, after=0):
        return iter(self.all)


def classes_of(subjects):
    return subjects[0].model.classes


def test_at_each_distance_a_frame_is_scored_with_the_result_that_is_its_own(late_subjects):
    protocol = DistanceProtocol(late_subjects, classes_of(late_subjects), [0, 1, 3], None)
    evaluate([Clip(range(FRAMES)), Clip(range(FRAMES), labelled={3, 8})], [protocol])
    assert len(protocol.scores) == 9
    for scores in protocol.scores.values():
        assert scores.frames[0] == FRAMES - 3 + 2
        assert scores.confusion.miou() == 1


def test_in_deployment_every_labelled_frame_is_scored_with_its_own_result(late_subjects):
    protocol = DeploymentProtocol(late_subjects, classes_of(late_subjects), 5, None)
    evaluate([Clip(range(FRAMES)), Clip(range(2)), Clip(range(FRAMES), labelled={0, 8})], [protocol])
    for subject in late_subjects:
        scores = protocol.scores[subject.name, 0]
        assert (scores.frames[0], scores.confusion.miou()) == (FRAMES + 2 + 2, 1)
        assert protocol.consistency[subject.name].counts[1] == 3


def test_the_frames_that_a_late_result_needs_are_shown_and_no_more(late_subjects):
    """The confidence of these models is the blue channel of the newest frame that was seen."""
    classes = classes_of(late_subjects)
    for subject in late_subjects:
        protocol = DistanceProtocol([subject], classes, [0, 2], Filmstrip(classes))
        seen = []
        protocol.scores[subject.name, 2].update = lambda truth, found, warped, seen=seen: seen.append(found)
        evaluate([Clip(range(FRAMES), labelled={4, 8})], [protocol])
        newest = [4 + subject.model.delay_frames, 8]
        for found, number in zip(seen, newest, strict=True):
            assert np.array_equal(found.confidence, frame(number).image[..., 0])
        assert len(protocol.film.samples()) == 2


def test_where_frames_were_left_out_nothing_after_the_hole_is_seen(late_subjects):
    protocol = DistanceProtocol(late_subjects[:1], classes_of(late_subjects), [0, 1], None)
    seen = []
    protocol.scores['late-1', 1].update = lambda truth, found, warped: seen.append(found.confidence)
    evaluate([Clip([0, 1, 5, 6, 7])], [protocol])
    expected = [frame(number).image[..., 0] for number in (1, 7, 7)]  # for frames 1, 6 and 7
    assert np.array_equal(seen, expected)


def test_one_that_is_late_does_not_change_the_scores_of_another(late_subjects):
    alone, together = (
        DistanceProtocol(subjects, classes_of(late_subjects), [0, 2], None)
        for subjects in (late_subjects[:1], late_subjects)
    )
    evaluate([Clip(range(FRAMES), labelled={2, 5, 8})], [alone, together])
    for key, scores in alone.scores.items():
        for name, counts in scores.arrays().items():
            assert np.array_equal(counts, together.scores[key].arrays()[name])


def test_of_files_those_after_a_labelled_one_are_read_where_they_are_needed(tmp_path):
    labelled = {1, 6}
    files = [
        FrameFile(tmp_path / str(number), number, tmp_path if number in labelled else None)
        for number in range(8)
    ]
    clip = FileClip('clip', files, lambda path: None)
    assert clip.wanted(1) == [0, 1, 5, 6]
    assert clip.wanted(1, after=2) == [0, 1, 2, 3, 5, 6, 7]
    assert clip.wanted(None, after=2) == list(range(8))
