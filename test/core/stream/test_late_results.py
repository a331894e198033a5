"""Models that see frames to come before they answer: every frame is answered once, and by its own result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vss_ros.core import pipeline
from vss_ros.core.engines import load_engine
from vss_ros.core.errors import EngineError, ModelError
from vss_ros.core.frame import Frame
from vss_ros.core.model.folder import MAX_DELAY_FRAMES, load_model
from vss_ros.core.settings import EngineSettings
from vss_ros.core.stream.segmenter import VideoSegmenter

FRAME_NS = 100_000_000
SIZE = (48, 64)
delays = pytest.mark.parametrize('delay', [1, 2, 3])


@pytest.fixture(scope='module')
def open_late(late_models):
    """Makes segmenters of models by their delay."""
    models = {delay: load_model(folder) for delay, folder in late_models.items()}
    engines = {delay: load_engine(model, EngineSettings('onnxruntime')) for delay, model in models.items()}

    def open_late(delay):
        return VideoSegmenter(models[delay], engines[delay])

    return open_late


def frame(number, size=SIZE, skipped=0):
    """A frame of one colour, which says its number."""
    return Frame(np.full((*size, 3), number, np.uint8), (number + 10 * skipped) * FRAME_NS, 'front')


def seen(answers):
    """Of each answer: the frame's number, that in its mask, and the newest frame that it knew."""
    return [
        (int(a.frame.image[0, 0, 0]), int(a.segmentation.mask[0, 0]), int(a.segmentation.confidence[0, 0]))
        for a in answers
    ]


def segment(segmenter, stream):
    return [answer for one in stream for answer in segmenter.answers(one)]


@delays
def test_a_frame_is_answered_when_the_frames_after_it_have_come(open_late, delay):
    segmenter = open_late(delay)
    for number in range(8):
        expected = [(number - delay,) * 2 + (number,)] if number >= delay else []
        assert seen(segmenter.answers(frame(number))) == expected


@delays
@pytest.mark.parametrize('length', [1, 2, 6])
def test_at_the_end_the_newest_frame_stands_for_those_to_come(open_late, delay, length):
    segmenter = open_late(delay)
    answers = segment(segmenter, map(frame, range(length))) + list(segmenter.flush())
    newest = length - 1
    assert seen(answers) == [(number, number, min(number + delay, newest)) for number in range(length)]
    assert list(segmenter.flush()) == []


def test_an_answer_carries_the_facts_of_its_own_frame(open_late):
    segmenter = open_late(1)
    stream = [frame(0), frame(1), frame(2, size=(30, 40)), frame(3, size=(30, 40), skipped=1)]
    answers = segment(segmenter, stream) + list(segmenter.flush())
    for answer, given_frame in zip(answers, stream, strict=True):
        assert answer.frame is given_frame
        assert answer.segmentation.stamp_ns == given_frame.stamp_ns
        assert answer.segmentation.mask.shape == given_frame.size
    reasons = [answer.segmentation.reset_reason for answer in answers]
    assert reasons == ['first frame', None, 'size changed', 'gap']
    assert all(a.segmentation.is_key and a.segmentation.age_frames == 0 for a in answers)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'stamp_ns': 0}, 'stamp went back'),
        ({'stamp_ns': 10**10}, 'gap'),
        ({'encoding': 'rgb8'}, 'encoding changed'),
        ({'camera': 'rear'}, 'camera changed'),
        ({}, 'requested'),
    ],
)
def test_where_a_new_stream_begins_the_old_one_is_answered_first(open_late, change, reason):
    segmenter = open_late(2)
    assert seen(segment(segmenter, map(frame, range(3)))) == [(0, 0, 2)]
    if not change:
        segmenter.reset()
    assert seen(segmenter.answers(replace(frame(3), **change))) == [(1, 1, 2), (2, 2, 2)]
    assert segmenter.resets == {'first frame': 1, reason: 1}
    last = list(segmenter.flush())
    assert seen(last) == [(3, 3, 3)]
    assert last[0].segmentation.reset_reason == reason


def test_a_reset_that_is_asked_for_while_the_old_stream_is_answered_is_not_lost(open_late):
    segmenter = open_late(2)
    segment(segmenter, map(frame, range(3)))
    segmenter.reset()
    answers = segmenter.answers(frame(3))
    next(answers)
    segmenter.reset('bag loop')
    list(answers)
    list(segmenter.answers(frame(4)))
    assert segmenter.resets == {'first frame': 1, 'requested': 1, 'bag loop': 1}


@delays
def test_a_live_stream_that_flushes_in_a_pause_goes_on_as_if_it_had_not(open_late, delay):
    segmenter = open_late(delay)
    segment(segmenter, map(frame, range(4)))
    assert [number for number, *_ in seen(segmenter.flush())] == list(range(4 - delay, 4))
    after = segment(segmenter, map(frame, range(4, 4 + delay)))
    assert after == []  # results of frames that were answered already
    assert seen(segmenter.answers(frame(4 + delay))) == [(4, 4, 4 + delay)]
    assert segmenter.resets == {'first frame': 1}


def test_a_requested_key_frame_does_not_mix_up_the_answers(open_late):
    segmenter = open_late(1)
    segment(segmenter, map(frame, range(2)))
    segmenter.request_key_frame()
    assert seen(segment(segmenter, map(frame, range(2, 4)))) == [(1, 1, 2), (2, 2, 3)]


events = st.lists(st.sampled_from(['follow', 'follow', 'gap', 'smaller', 'reset', 'pause']), max_size=30)


@given(delay=st.integers(1, 3), history=events)
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_happens_to_a_stream_every_frame_is_answered_once_and_in_order(open_late, delay, history):
    segmenter = open_late(delay)
    answers, given_frames, size, skipped = [], [], SIZE, 0
    for event in history:
        if event == 'pause':
            answers += segmenter.flush()
            continue
        if event == 'reset':
            segmenter.reset()
        size = (24, 32) if event == 'smaller' else size
        skipped += event == 'gap'
        given_frames.append(frame(len(given_frames), size, skipped))
        answers += segmenter.answers(given_frames[-1])
    answers += segmenter.flush()
    assert [answer.frame for answer in answers] == given_frames
    assert all(number == in_mask <= newest for number, in_mask, newest in seen(answers))
    assert segmenter.given_up == 0


class FailingEngine:
    """A real engine that fails on demand."""

    def __init__(self, engine):
        self.engine = engine
        self.fails = self.fails_to_read = False

    def run(self, graph, tensors):
        if self.fails:
            raise EngineError('out of memory')
        return self.engine.run(graph, tensors)

    def to_host(self, tensor):
        if self.fails_to_read:
            raise EngineError('lost the device')
        return self.engine.to_host(tensor)


@pytest.fixture
def failing(open_late):
    segmenter = open_late(2)
    segmenter.engine = FailingEngine(segmenter.engine)
    return segmenter


def test_an_error_gives_up_what_was_owed_and_the_next_frame_starts_a_new_stream(failing):
    segment(failing, map(frame, range(4)))
    failing.engine.fails = True
    with pytest.raises(EngineError, match='out of memory'):
        list(failing.answers(frame(4)))
    failing.engine.fails = False
    assert failing.given_up == 2  # frames 2 and 3
    answers = segment(failing, map(frame, range(5, 7))) + list(failing.flush())
    assert seen(answers) == [(5, 5, 6), (6, 6, 6)]
    assert answers[0].segmentation.reset_reason == 'error'


def test_an_error_while_the_owed_is_answered_ends_the_stream_as_well(failing):
    segment(failing, map(frame, range(3)))
    failing.engine.fails = True
    with pytest.raises(EngineError, match='out of memory'):
        list(failing.flush())
    failing.engine.fails = False
    assert failing.given_up == 2
    assert segment(failing, [frame(3)]) == []
    assert [a.segmentation.reset_reason for a in failing.flush()] == ['error']


def test_an_answer_that_is_owed_and_cannot_be_read_is_given_up_with_the_others(failing):
    segment(failing, map(frame, range(3)))
    failing.engine.fails_to_read = True
    with pytest.raises(EngineError, match='lost the device'):
        list(failing.flush())
    assert failing.given_up == 2


class Collector:
    """A sink that keeps what it gets."""

    def __init__(self):
        self.answers = []

    def write(self, frame, segmentation):
        self.answers.append((frame, segmentation))

    def close(self):
        pass


def test_the_loop_answers_every_frame_of_a_source_that_pauses_and_ends(open_late):
    sink, stream = Collector(), [frame(number) for number in range(6)]
    pipeline.run([None, *stream[:3], None, None, *stream[3:]], open_late(2), [sink])
    assert [frame for frame, _ in sink.answers] == stream
    assert all((result.mask == frame.image[..., 0]).all() for frame, result in sink.answers)


def test_the_loop_reports_each_error_and_goes_on(failing):
    sink, errors = Collector(), []

    def source():
        for number in range(6):
            failing.engine.fails = number == 2
            yield frame(number)

    pipeline.run(source(), failing, [sink], lambda error, frame: errors.append(error))
    assert [str(error) for error in errors] == ['out of memory']
    assert [int(frame.image[0, 0, 0]) for frame, _ in sink.answers] == [3, 4, 5]


def test_the_loop_tells_which_frame_an_error_cost_and_none_in_a_pause(failing):
    costs = []

    def source():
        for number in (0, 1, None, 2):
            failing.engine.fails = number is None
            yield None if number is None else frame(number)
        failing.engine.fails = True
        yield frame(3)

    pipeline.run(source(), failing, [Collector()], lambda error, frame: costs.append(frame))
    assert [None if frame is None else int(frame.image[0, 0, 0]) for frame in costs] == [None, 3]
    assert failing.given_up == 3  # frames 0 and 1 in the pause, frame 2 with frame 3


def test_a_reset_is_not_forgotten_where_a_sink_fails_on_what_the_old_stream_owed(open_late):
    segmenter, failures = open_late(2), [OSError('disk full')]

    class FailsOnce(Collector):
        def write(self, frame, segmentation):
            if failures:
                raise failures.pop()
            super().write(frame, segmentation)

    def source():
        for number in range(5):
            if number == 2:
                segmenter.reset('bag loop')
            yield frame(number)

    sink, errors = FailsOnce(), []
    pipeline.run(source(), segmenter, [sink], lambda error, frame: errors.append(error))
    assert [str(error) for error in errors] == ['disk full']
    assert segmenter.resets == {'first frame': 1, 'bag loop': 1}
    # Frame 0 was refused by the sink, and while that was reported frame 2 was not taken.
    assert [int(frame.image[0, 0, 0]) for frame, _ in sink.answers] == [1, 3, 4]


def test_one_result_for_one_frame_is_refused_where_results_are_late(open_late):
    with pytest.raises(ModelError, match=r'results 1 frames late; ask for answers\(frame\)'):
        open_late(1).step(frame(0))


@pytest.mark.parametrize('value', [-1, 9, 1.0, '1', True, None])
def test_a_delay_that_makes_no_sense_is_refused(late_models, tmp_path, value):
    edit(late_models[1], tmp_path / 'model.yaml', {'delay_frames': value})
    with pytest.raises(ModelError, match=r'delay_frames is .*; expected 0 to 8'):
        load_model(tmp_path)


@pytest.mark.parametrize(
    'steps',
    [
        {'key': ['start', 'echo']},
        {'key': ['start'], 'propagated': ['echo']},
        {'key': ['start', 'flow', 'echo'], 'propagated': ['flow', 'echo']},
    ],
)
def test_late_results_need_a_propagated_step_that_the_key_step_contains(late_models, tmp_path, steps):
    edit(late_models[1], tmp_path / 'model.yaml', {'steps': steps})
    with pytest.raises(ModelError, match='delay_frames is 1; expected a propagated step whose stages'):
        load_model(tmp_path)


def test_the_longest_delay_there_may_be_is_taken(late_models, tmp_path):
    edit(late_models[1], tmp_path / 'model.yaml', {'delay_frames': MAX_DELAY_FRAMES})
    assert load_model(tmp_path).delay_frames == MAX_DELAY_FRAMES


def test_a_model_whose_results_are_late_carries_none(late_models, tmp_path):
    steps = {'key': ['start', 'echo'], 'propagated': ['echo'], 'carried': ['echo']}
    edit(late_models[1], tmp_path / 'model.yaml', {'steps': steps})
    with pytest.raises(ModelError, match='a carried step needs a propagated one and no delay'):
        load_model(tmp_path)


def edit(folder, file, change):
    """Copies a model with other entries in its description."""
    for graph in folder.glob('*.onnx'):
        (file.parent / graph.name).write_bytes(graph.read_bytes())
    file.write_text(yaml.safe_dump(yaml.safe_load((folder / 'model.yaml').read_text()) | change))
