"""Key frames computed beside the stream: whenever they are done, each answer is that of its own key frame."""

import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vss_ros.core.engines import load_engine
from vss_ros.core.errors import EngineError, SettingsError
from vss_ros.core.frame import Frame
from vss_ros.core.motion import dis
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.stream import background
from vss_ros.core.stream.background import MAX_AGE
from vss_ros.core.stream.segmenter import VideoSegmenter

FRAME_NS = 100_000_000
BACKGROUND = StreamSettings(key_frame_interval=4, background_key_frames=True)
DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def flow_without_memory(monkeypatch):
    """Flow is also found from that of the frame before, which a key frame in the foreground does not have."""
    monkeypatch.setattr(dis, 'REACH', 0)


@pytest.fixture
def open_stream(model, engine):
    """Makes segmenters that are closed at the end; none of their threads may be left then."""
    made = []

    def make(settings, engine=engine):
        made.append(VideoSegmenter(model, engine, settings))
        return made[-1]

    yield make
    for segmenter in made:
        segmenter.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith('key_frames')]


class GatedEngine:
    """A real engine whose second one waits at a gate before each key step, and fails on demand."""

    def __init__(self, engine):
        self.engine = engine
        self.gate = threading.Event()
        self.error = None
        self.begun = threading.Semaphore(0)

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def second(self):
        return _Second(self)


class _Second:
    def __init__(self, owner):
        self.owner = owner

    def run(self, graph, tensors):
        if graph == 'segmenter':
            self.owner.begun.release()
            assert self.owner.gate.wait(DEADLINE_S)
        if self.owner.error is not None:
            raise self.owner.error
        return self.owner.engine.run(graph, tensors)


@pytest.fixture
def gated(engine):
    gated = GatedEngine(engine)
    yield gated
    gated.gate.set()


def frames(images):
    return [Frame(image, number * FRAME_NS) for number, image in enumerate(images)]


def long_drive(street, count):
    """The street there and back."""
    there_and_back = [*street, *street[-2:0:-1]]
    return frames([there_and_back[n % len(there_and_back)] for n in range(count)])


class Foreground:
    """The answers of streams that took another one's key frames in the foreground.

    Frames that the other one answered before it had the key frame are only carried.
    """

    def __init__(self, model, engine, stream, settings=BACKGROUND):
        self.model, self.engine, self.stream = model, engine, stream
        self.settings = replace(settings, key_frame_interval=1000, background_key_frames=False)
        self.of_key = {}

    def answer(self, key, number):
        """To be asked for the frames of the other stream in their order."""
        if key not in self.of_key:
            carrying = replace(self.settings, correction_interval=1000)
            self.of_key[key] = VideoSegmenter(self.model, self.engine, carrying)
            for frame in self.stream[key:number]:
                self.of_key[key].step(frame)
            self.of_key[key].configure(self.settings)
        return self.of_key[key].step(self.stream[number])


def assert_equal(found, expected):
    assert np.array_equal(found.mask, expected.mask)
    assert np.array_equal(found.confidence, expected.confidence)
    assert np.array_equal(found.distortion(), expected.distortion())


@pytest.mark.parametrize('delay', [1, 2, 3])
def test_a_key_frame_takes_effect_after_the_delay_and_no_frame_waits_for_it(open_stream, street, delay):
    segmenter = open_stream(replace(BACKGROUND, background_delay_frames=delay))
    found = [segmenter.step(frame) for frame in frames(street[:11])]
    assert ''.join('K' if s.is_key else '.' for s in found) == 'K..........'
    ages = [number if number < 4 + delay else (number - delay) % 4 + delay for number in range(11)]
    assert [s.age_frames for s in found] == ages
    assert [s.age_ns for s in found] == [age * FRAME_NS for age in ages]
    assert all('segmenter' not in s.timings_ms for s in found[1:])


@pytest.mark.parametrize('delay', [0, 1, 3])
def test_each_answer_is_that_of_a_stream_with_its_key_frame_in_the_foreground_that_carried_those_between(
    model, engine, open_stream, street, delay
):
    stream = long_drive(street, 24)
    segmenter = open_stream(replace(BACKGROUND, background_delay_frames=delay))
    foreground = Foreground(model, engine, stream)
    for number, frame in enumerate(stream):
        found = segmenter.step(frame)
        assert_equal(found, foreground.answer(number - found.age_frames, number))
        assert found.age_ns == found.age_frames * FRAME_NS
    if delay:
        assert segmenter.background.handed_over == 5


def test_in_a_motionless_scene_the_answers_are_those_of_the_foreground(open_stream, street):
    stream = frames([street[0]] * 12)
    background = open_stream(replace(BACKGROUND, background_delay_frames=1))
    foreground = open_stream(StreamSettings(key_frame_interval=4))
    for frame in stream:
        found, expected = background.step(frame), foreground.step(frame)
        if found.age_frames == expected.age_frames:
            assert_equal(found, expected)
    assert background.background.handed_over == 2


def test_frames_between_corrections_are_carried_from_a_key_frame_of_the_background_too(
    model, engine, open_stream, street
):
    stream, settings = long_drive(street, 24), replace(BACKGROUND, correction_interval=3)
    segmenter = open_stream(replace(settings, background_delay_frames=1))
    foreground = Foreground(model, engine, stream, settings)
    found = [segmenter.step(frame) for frame in stream]
    assert ''.join(each.kind[0] for each in found[:13]) == 'kccpcccpcccpc'
    for number, each in enumerate(found):
        expected = foreground.answer(number - each.age_frames, number)
        assert each.kind == expected.kind
        assert_equal(each, expected)


def test_a_key_frame_that_takes_long_is_gone_on_from_across_all_frames_since(
    model, open_stream, gated, street
):
    stream = long_drive(street, 40)
    segmenter = open_stream(BACKGROUND, gated)
    found = [segmenter.step(frame) for frame in stream[:20]]
    assert [s.age_frames for s in found] == list(range(20))  # honest about how old the key frame is
    foreground = Foreground(model, gated, stream)
    for number in range(20):
        foreground.answer(0, number)
    gated.gate.set()
    for number, frame in enumerate(stream[20:], 20):
        found = segmenter.step(frame)
        key = number - found.age_frames
        assert key in (0, 4) or key >= 20
        assert_equal(found, foreground.answer(key, number))


def test_a_reset_forgets_the_key_frame_in_work(model, open_stream, gated, street):
    stream = frames(street)
    segmenter = open_stream(BACKGROUND, gated)
    for frame in stream[:6]:
        segmenter.step(frame)
    assert gated.begun.acquire(timeout=DEADLINE_S)
    segmenter.reset()
    first = segmenter.step(stream[6])
    assert (first.is_key, first.reset_reason) == (True, 'requested')
    gated.gate.set()
    segmenter.background._pool.submit(lambda: None).result(DEADLINE_S)  # the old one has run to its end
    foreground = Foreground(model, gated, stream)
    for number in (7, 8, 9):
        found = segmenter.step(stream[number])
        assert found.age_frames == number - 6
        assert_equal(found, foreground.answer(6, number))
    assert segmenter.background.handed_over == 0


def test_a_new_stream_does_not_wait_for_a_key_frame_of_the_old_one(open_stream, gated, street):
    segmenter = open_stream(replace(BACKGROUND, background_delay_frames=1), gated)
    stream = frames(street)
    for frame in stream[:5]:
        segmenter.step(frame)
    assert segmenter.background.is_busy  # and the frame after would wait for it
    segmenter.reset()
    assert segmenter.step(stream[5]).is_key
    assert (segmenter.background.handed_over, segmenter.background.failed) == (0, 0)


def test_a_requested_key_frame_is_taken_at_once_and_replaces_the_one_in_work(open_stream, gated, street):
    segmenter = open_stream(BACKGROUND, gated)
    stream = frames(street)
    for frame in stream[:6]:
        segmenter.step(frame)
    segmenter.request_key_frame()
    assert segmenter.step(stream[6]).is_key
    assert not segmenter.background.is_busy
    gated.gate.set()
    assert [segmenter.step(frame).age_frames for frame in stream[7:9]] == [1, 2]


def test_an_error_in_the_background_leads_to_a_key_frame_in_the_foreground(
    open_stream, gated, street, caplog
):
    gated.gate.set()
    gated.error = EngineError('out of memory')
    segmenter = open_stream(replace(BACKGROUND, background_delay_frames=1), gated)
    stream = frames(street)
    found = [segmenter.step(frame) for frame in stream[:6]]
    assert [s.is_key for s in found] == [True, False, False, False, False, True]
    assert [s.reset_reason for s in found[1:]] == [None] * 5
    assert segmenter.background.failed == 1
    assert 'out of memory' in caplog.text
    assert segmenter.background.in_work_s == 0
    gated.error = None
    found = [segmenter.step(frame) for frame in stream[6:]]
    assert [s.age_frames for s in found] == [1, 2, 3, 4, 1, 2]
    assert (segmenter.background.failed, segmenter.background.handed_over) == (1, 1)


def test_a_key_frame_that_is_not_there_after_long_is_given_up_with_the_reason(
    open_stream, gated, street, caplog
):
    segmenter = open_stream(BACKGROUND, gated)
    found = [segmenter.step(frame) for frame in long_drive(street, MAX_AGE + 8)]
    kinds = [s.is_key for s in found]
    assert kinds.index(True, 1) == 4 + MAX_AGE + 2
    assert segmenter.background.failed == 1
    assert 'set background_key_frames to false' in caplog.text


@pytest.mark.parametrize('dropped', ['by a reset', 'by its age'])
def test_images_that_wait_for_a_thread_that_does_not_come_back_are_not_kept(
    open_stream, gated, street, monkeypatch, caplog, dropped
):
    caplog.set_level('ERROR', logger='vss_ros.core.stream')  # what is logged keeps the error, and that all
    monkeypatch.setattr(background, 'MAX_AGE', 2 if dropped == 'by its age' else MAX_AGE)
    segmenter = open_stream(BACKGROUND, gated)
    images = []
    for frame in long_drive([image.copy() for image in street], 40):
        own = Frame(frame.image.copy(), frame.stamp_ns)
        images.append(weakref.ref(own.image))
        segmenter.step(own)
        if dropped == 'by a reset' and len(images) % 7 == 0:
            segmenter.reset()
    del own, frame
    assert (segmenter.background.failed > 0) == (dropped == 'by its age')
    assert segmenter.background.in_work_s > 0
    alive = sum(image() is not None for image in images)
    assert alive <= 4  # the one in work, the one that waits for it, the newest, and the anchor


@given(
    actions=st.lists(
        st.sampled_from(['frame'] * 8 + ['reset', 'request', 'gap', 'fail', 'gate']), max_size=40
    ),
    delay=st.integers(0, 3),
)
@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_happens_every_frame_is_answered_and_the_end_is_reached(
    model, engine, street, actions, delay
):
    gated = GatedEngine(engine)
    gated.gate.set()
    settings = StreamSettings(key_frame_interval=2, background_key_frames=True, background_delay_frames=delay)
    segmenter = VideoSegmenter(model, gated, settings)
    key_ns = stamp_ns = 0
    for number, action in enumerate(actions):
        if action == 'reset':
            segmenter.reset()
        elif action == 'request':
            segmenter.request_key_frame()
        elif action == 'fail':
            gated.error = None if gated.error else EngineError('once')
        elif action == 'gate' and not delay:  # with a delay the stream itself would wait at the gate
            gated.gate.clear() if gated.gate.is_set() else gated.gate.set()
        stamp_ns += FRAME_NS * (20 if action == 'gap' else 1)
        found = segmenter.step(Frame(street[number % len(street)], stamp_ns))
        assert found.is_key == (found.age_frames == 0 == found.age_ns)
        assert found.reset_reason is None or found.is_key
        assert stamp_ns - found.age_ns >= key_ns  # no older key frame ever comes back
        key_ns = stamp_ns - found.age_ns
    gated.gate.set()
    segmenter.close()


def test_the_second_engine_goes_before_the_one_that_it_ends_with(open_stream, gated):
    segmenter = open_stream(BACKGROUND, gated)
    second = weakref.ref(segmenter.background._engine)
    segmenter.close()
    assert second() is None


def test_why_the_second_engine_cannot_be_warmed_up_is_told_at_once(model, open_stream, gated, caplog):
    class OnADevice(_Second):
        upload = synchronise = _Second.run  # by which a DeviceEngine is known

    gated.gate.set()
    gated.error, gated.second = EngineError('no memory left'), lambda: OnADevice(gated)
    open_stream(BACKGROUND, gated).close()
    assert 'cannot be prepared: no memory left' in caplog.text


def test_an_engine_for_one_thread_only_is_refused(model, engine, open_stream):
    class ForOneThread(GatedEngine):
        def second(self):
            raise EngineError('this engine is for one thread')

    with pytest.raises(EngineError, match='for one thread'):
        open_stream(BACKGROUND, ForOneThread(engine))
    assert open_stream(StreamSettings(), ForOneThread(engine)).background is None


@pytest.mark.parametrize('name', ['torch', 'openvino'])
def test_other_engines_give_in_the_background_what_they_give_in_the_foreground(
    model, open_stream, street, name
):
    pytest.importorskip(name)
    engine = load_engine(model, EngineSettings(name))
    stream = frames(street)
    segmenter = open_stream(replace(BACKGROUND, background_delay_frames=2), engine)
    foreground = Foreground(model, engine, stream)
    for number, frame in enumerate(stream):
        found = segmenter.step(frame)
        expected = foreground.answer(number - found.age_frames, number)
        assert (found.mask != expected.mask).mean() < 0.005
    assert segmenter.background.handed_over == 2


def test_a_key_frame_that_does_not_end_is_not_waited_for_without_end(open_stream, gated, street, monkeypatch):
    segmenter = open_stream(BACKGROUND, gated)
    for frame in frames(street)[:5]:
        segmenter.step(frame)
    assert gated.begun.acquire(timeout=DEADLINE_S)
    monkeypatch.setattr(background, 'CLOSE_S', 0.1)
    for _ in range(2):
        with pytest.raises(EngineError, match='did not come back from a key frame in the background'):
            segmenter.close()
    monkeypatch.undo()
    gated.gate.set()  # `open_stream` closes it once more


def test_a_negative_delay_is_refused():
    with pytest.raises(SettingsError, match='background_delay_frames is -1; use 0'):
        StreamSettings(background_delay_frames=-1)
