import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vss_ros.core.errors import EngineError, FrameError, ModelError
from vss_ros.core.frame import UNLABELLED, Frame
from vss_ros.core.open_segmenter import make_segmenter, open_segmenter
from vss_ros.core.resize import fit, fit_labels
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.stream.answers import Owed, answer_to
from vss_ros.core.stream.segmenter import VideoSegmenter
from vss_ros.core.stream.stopwatch import Stopwatch

FRAME_NS = 100_000_000


@pytest.fixture
def segmenter(model, engine):
    return VideoSegmenter(model, engine)


class WatchedEngine:
    """A real engine that notes what is asked of it and fails on demand."""

    def __init__(self, engine):
        self.engine = engine
        self.graphs = []
        self.downloads = 0
        self.fails_in = None
        self.meanwhile = None

    def run(self, graph, tensors):
        self.graphs.append(graph)
        if self.meanwhile is not None:
            self.meanwhile()
        if graph == self.fails_in:
            raise EngineError('out of memory')
        return self.engine.run(graph, tensors)

    def to_host(self, tensor):
        self.downloads += 1
        return self.engine.to_host(tensor)


def frames(images, **changes):
    return [Frame(image, number * FRAME_NS, **changes) for number, image in enumerate(images)]


def places(segmenter, stream):
    return ''.join('K' if segmenter.step(frame).is_key else '.' for frame in stream)


@pytest.mark.parametrize(
    ('interval', 'line'),
    [(1, 'KKKKKKKK'), (2, 'K.K.K.K.'), (3, 'K..K..K.'), (5, 'K....K..'), (50, 'K.......')],
)
def test_key_frames_come_at_the_interval(model, engine, street, interval, line):
    segmenter = VideoSegmenter(model, engine, StreamSettings(key_frame_interval=interval))
    assert places(segmenter, frames(street[:8])) == line


def test_a_key_frame_runs_the_segmenter_and_a_propagated_frame_the_correction(model, engine, street):
    watched = WatchedEngine(engine)
    segmenter = VideoSegmenter(model, watched)
    stream = frames(street[:2])
    key = segmenter.step(stream[0])
    propagated = segmenter.step(stream[1])
    assert watched.graphs == ['segmenter', 'warp', 'correction']
    assert list(key.timings_ms) == ['resize', 'flow', 'segmenter', 'download', 'output']
    assert list(propagated.timings_ms) == ['resize', 'flow', 'warp', 'correction', 'download', 'output']
    assert all(duration >= 0 for duration in propagated.timings_ms.values())
    assert key.corrected_share is None
    assert 0 < propagated.corrected_share < 1


def test_age_counts_frames_and_time_since_the_key_frame(model, engine, street):
    segmenter = VideoSegmenter(model, engine, StreamSettings(key_frame_interval=3))
    found = [segmenter.step(frame) for frame in frames(street[:5])]
    assert [s.age_frames for s in found] == [0, 1, 2, 0, 1]
    assert [s.age_ns for s in found] == [0, FRAME_NS, 2 * FRAME_NS, 0, FRAME_NS]
    assert [s.stamp_ns for s in found] == [number * FRAME_NS for number in range(5)]


def test_a_requested_key_frame_comes_once_and_the_interval_counts_from_it(model, engine, street):
    segmenter = VideoSegmenter(model, engine, StreamSettings(key_frame_interval=4))
    stream = frames(street[:10])
    line = places(segmenter, stream[:2])
    segmenter.request_key_frame()
    assert line + places(segmenter, stream[2:]) == 'K.K...K...'
    assert segmenter.resets == {'first frame': 1}


def test_a_new_interval_takes_effect_with_the_next_frame(segmenter, street):
    stream = frames(street[:8])
    line = places(segmenter, stream[:3])
    segmenter.configure(StreamSettings(key_frame_interval=2))
    assert line + places(segmenter, stream[3:]) == 'K..K.K.K'


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'stamp_ns': FRAME_NS - 1}, 'stamp went back'),
        ({'stamp_ns': FRAME_NS + 500_000_001}, 'gap'),
        ({'image': np.zeros((60, 90, 3), np.uint8)}, 'size changed'),
        ({'encoding': 'rgb8'}, 'encoding changed'),
        ({'camera': 'rear'}, 'camera changed'),
    ],
)
def test_a_frame_that_does_not_follow_starts_a_new_stream(segmenter, street, change, reason):
    stream = frames(street[:4])
    assert places(segmenter, stream[:2]) == 'K.'
    found = segmenter.step(dataclasses.replace(stream[2], **change))
    assert (found.is_key, found.reset_reason, found.age_frames, found.age_ns) == (True, reason, 0, 0)
    assert segmenter.resets == {'first frame': 1, reason: 1}


def test_frames_with_one_stamp_or_just_within_the_gap_follow(segmenter, street):
    stamps = [0, 0, 500_000_000]
    found = [segmenter.step(Frame(street[n], stamp)) for n, stamp in enumerate(stamps)]
    assert [s.reset_reason for s in found] == ['first frame', None, None]


def test_a_reset_names_its_reason_and_happens_once(segmenter, street):
    stream = frames(street[:4])
    places(segmenter, stream[:2])
    segmenter.reset('bag loop')
    found = [segmenter.step(frame) for frame in stream[2:]]
    assert [(s.is_key, s.reset_reason) for s in found] == [(True, 'bag loop'), (False, None)]


def test_after_a_reset_nothing_of_the_old_stream_is_left(model, engine, street):
    used, fresh = (VideoSegmenter(model, engine) for _ in range(2))
    for image in street[:3]:
        used.step(Frame(255 - image, 0))
    used.reset()
    for frame in frames(street[:4]):
        assert np.array_equal(used.step(frame).mask, fresh.step(frame).mask)


@pytest.mark.parametrize('graph', ['segmenter', 'warp', 'correction'])
def test_an_engine_error_costs_one_frame_and_the_next_starts_a_new_stream(model, engine, street, graph):
    watched = WatchedEngine(engine)
    segmenter = VideoSegmenter(model, watched)
    stream = frames(street[:6])
    if graph != 'segmenter':
        places(segmenter, stream[:2])
    watched.fails_in = graph
    with pytest.raises(EngineError, match='out of memory'):
        segmenter.step(stream[2])
    watched.fails_in = None
    found = [segmenter.step(frame) for frame in stream[3:]]
    assert [(s.is_key, s.reset_reason) for s in found] == [(True, 'error'), (False, None), (False, None)]


def test_a_cut_that_has_no_motion_vectors_becomes_a_key_frame_within_the_stream(model, engine, street):
    pytest.importorskip('av')
    segmenter = VideoSegmenter(model, engine, StreamSettings(motion='motion_vectors'))
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    found = [segmenter.step(frame) for frame in frames([noise, street[0] // 8, street[1] // 8])]
    assert [s.is_key for s in found] == [True, True, False]
    assert [s.reset_reason for s in found] == ['first frame', None, None]


def test_the_flow_of_another_estimator_may_be_asked_for(model, engine, street):
    pytest.importorskip('av')
    masks = {}
    for motion in ('model', 'dis', 'motion_vectors'):
        segmenter = VideoSegmenter(model, engine, StreamSettings(motion=motion))
        masks[motion] = [segmenter.step(frame).mask for frame in frames(street[:3])][-1]
    assert np.array_equal(masks['model'], masks['dis'])
    assert 0 < (masks['dis'] != masks['motion_vectors']).mean() < 0.3


def test_a_flow_network_that_the_model_does_not_have_is_refused(model, engine):
    with pytest.raises(ModelError, match='tiny has no flow network; use motion: dis'):
        VideoSegmenter(model, engine, StreamSettings(motion='network'))


@pytest.mark.parametrize(
    'changes',
    [{'motion': 'network'}, {'motion': 'dis'}, {'scheduler': 'adaptive'}, {'background_key_frames': True}],
)
def test_a_model_that_cannot_propagate_computes_every_frame_in_full_and_nothing_beside(
    model, engine, street, changes
):
    alone = dataclasses.replace(model, steps={'key': model.steps['key']}, state={})
    segmenter = VideoSegmenter(alone, engine, StreamSettings(**changes))
    assert (segmenter._motion, segmenter.expectation, segmenter.background) == (None, None, None)
    assert places(segmenter, frames(street[:3])) == 'KKK'


def test_the_estimator_stays_while_a_stream_runs(segmenter, street):
    segmenter.configure(StreamSettings(motion='motion_vectors', confidence_threshold=0.5))
    segmenter.step(Frame(street[0], 0))
    assert segmenter.settings == StreamSettings(motion='model', confidence_threshold=0.5)


def test_what_is_asked_while_a_frame_is_in_work_is_done_with_the_next_one(model, engine, street):
    watched = WatchedEngine(engine)
    segmenter = VideoSegmenter(model, watched)

    def ask():
        watched.meanwhile = None
        segmenter.configure(StreamSettings(confidence_threshold=1.0))
        segmenter.request_key_frame()
        segmenter.reset('bag loop')

    watched.meanwhile = ask
    stream = frames(street[:3])
    in_work, after, last = (segmenter.step(frame) for frame in stream)
    assert UNLABELLED not in in_work.mask
    assert in_work.reset_reason == 'first frame'
    assert UNLABELLED in after.mask
    assert (after.is_key, after.reset_reason) == (True, 'bag loop')
    assert (last.is_key, last.reset_reason) == (False, None)


@pytest.mark.parametrize('size', [(64, 96), (480, 640), (33, 57), (1, 1), (7, 300), (200, 3)])
def test_an_image_of_any_size_gives_a_mask_of_its_size(segmenter, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for frame in frames([image, image]):
        found = segmenter.step(frame)
        for array in (found.mask, found.confidence, found.distortion()):
            assert (array.shape, array.dtype) == (size, np.uint8)
        assert found.mask.max() < 11


def test_the_mask_may_stay_at_the_size_of_the_network(model, engine, street):
    segmenter = VideoSegmenter(model, engine, StreamSettings(output_size='network'))
    found = segmenter.step(Frame(cv2.resize(street[0], (301, 201)), 0))
    assert found.mask.shape == found.confidence.shape == found.distortion().shape == (64, 96)


@pytest.mark.parametrize(('threshold', 'least'), [(0.5, 128), (0.6, 153)])  # 153 is 0.6 of 255
def test_pixels_below_the_confidence_threshold_are_unlabelled(model, engine, street, threshold, least):
    free = VideoSegmenter(model, engine)
    strict = VideoSegmenter(model, engine, StreamSettings(confidence_threshold=threshold))
    for frame in frames(street[:2]):
        found, expected = strict.step(frame), free.step(frame)
        doubtful = expected.confidence < least
        assert 0 < doubtful.mean() < 1
        assert (expected.confidence == least).any()
        assert np.array_equal(found.mask == UNLABELLED, doubtful)
        assert np.array_equal(found.mask[~doubtful], expected.mask[~doubtful])
        assert np.array_equal(found.confidence, expected.confidence)


def test_unlabelled_pixels_do_not_spread_to_the_frames_after(model, engine, street):
    free = VideoSegmenter(model, engine)
    strict = VideoSegmenter(model, engine, StreamSettings(confidence_threshold=1.0))
    stream = frames(street[:4])
    assert places(free, stream[:3]) == places(strict, stream[:3]) == 'K..'
    strict.configure(StreamSettings())
    assert np.array_equal(strict.step(stream[3]).mask, free.step(stream[3]).mask)


def test_the_distortion_map_is_downloaded_only_when_somebody_looks(model, engine, street):
    watched = WatchedEngine(engine)
    segmenter = VideoSegmenter(model, watched)
    stream = frames([cv2.resize(image, (192, 128)) for image in street[:2]])
    assert not segmenter.step(stream[0]).distortion().any()
    found = segmenter.step(stream[1])
    before = watched.downloads
    distortion = found.distortion()
    assert watched.downloads == before + 1
    assert distortion.shape == (128, 192)
    assert 0 < distortion.mean() < 255


def test_distortion_beyond_its_range_is_all_or_none_of_it_and_the_rest_is_rounded(engine):
    tensors = {
        'mask': np.zeros((1, 1, 4), np.uint8),
        'confidence': np.zeros((1, 1, 4), np.uint8),
        'distortion': np.float32([[[[-0.1, 0.5, 1.0, 1.1]]]]),
    }
    owed = Owed(Frame(np.zeros((1, 4, 3), np.uint8), 0), False, False, 1, 0, None)
    answer = answer_to(owed, tensors, engine, StreamSettings(), (1, 4), Stopwatch())
    assert answer.segmentation.distortion().tolist() == [[0, 128, 255, 255]]


@pytest.mark.parametrize(
    ('image', 'reason'),
    [
        (np.zeros((4, 4), np.uint8), r'uint8 \(4, 4\)'),
        (np.zeros((4, 4, 4), np.uint8), r'\(4, 4, 4\)'),
        (np.zeros((4, 4, 3), np.float32), r'float32 \(4, 4, 3\)'),
        (np.zeros((0, 4, 3), np.uint8), r'\(0, 4, 3\)'),
    ],
)
def test_an_image_that_is_none_is_refused_before_it_reaches_the_stream(image, reason):
    with pytest.raises(FrameError, match=f'image is .*{reason}; expected uint8'):
        Frame(image, 0)


def test_an_image_that_opencv_did_not_find_is_refused_by_name():
    with pytest.raises(FrameError, match=r'image is NoneType; expected a NumPy array .*imread gives None'):
        Frame(cv2.imread('no-such.png'), 0)


def test_labels_of_another_size_than_their_image_are_refused():
    with pytest.raises(FrameError, match=r'labels are \(4, 5\); the image is \(4, 4\)'):
        Frame(np.zeros((4, 4, 3), np.uint8), 0, truth=np.zeros((4, 5), np.uint8))


def test_one_call_opens_a_segmenter_on_a_folder(tiny_model, street):
    segmenter = open_segmenter(
        tiny_model, EngineSettings('onnxruntime'), StreamSettings(key_frame_interval=1)
    )
    assert places(segmenter, frames(street[:3])) == 'KKK'


@pytest.mark.parametrize('regions', ['1x1', '2x1'])
def test_an_opened_segmenter_closes_its_engine_and_one_that_shares_it_does_not(tiny_model, street, regions):
    settings = StreamSettings(regions=regions)
    with open_segmenter(tiny_model, EngineSettings('onnxruntime'), settings) as segmenter:
        with make_segmenter(segmenter.model, segmenter.engine, settings) as other:
            assert places(other, frames(street[:2])) == 'K.'
        assert places(segmenter, frames(street[:2])) == 'K.'
    with pytest.raises(EngineError, match='failed in ONNX Runtime'):
        other.step(Frame(street[2], 2 * FRAME_NS))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
@hypothesis_settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_resizing_labels_invents_none(height, width, new_height, new_width):
    labels = np.random.default_rng(0).choice(np.array([0, 5, 10, 255], np.uint8), (height, width))
    resized = fit_labels(labels, (new_height, new_width))
    assert resized.shape == (new_height, new_width)
    assert set(np.unique(resized)) <= set(np.unique(labels))


def test_an_image_that_fits_is_not_copied():
    image = np.zeros((4, 6, 3), np.uint8)
    assert fit(image, (4, 6)) is image
