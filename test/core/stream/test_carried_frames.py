"""Between corrections the result of the last computed frame is carried along the flow; no network runs."""

from __future__ import annotations

import dataclasses
import shutil

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vss_ros.core.engines.wrapper import EngineWrapper
from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.core.frame import Frame
from vss_ros.core.model.folder import MODEL_FILE, load_model
from vss_ros.core.motion import dis
from vss_ros.core.open_segmenter import make_segmenter
from vss_ros.core.settings import StreamSettings
from vss_ros.core.stream.segmenter import VideoSegmenter

FRAME_NS = 100_000_000


def frames(images):
    return [Frame(image, number * FRAME_NS) for number, image in enumerate(images)]


def kinds(found):
    return ''.join(each.kind[0] for each in found)


def settings_of(interval, correction_interval, **changes):
    return StreamSettings(interval, correction_interval=correction_interval, **changes)


def plain(model):
    """The model without its carried step."""
    return dataclasses.replace(model, steps={name: model.steps[name] for name in ('key', 'propagated')})


@pytest.mark.parametrize(
    ('interval', 'correction', 'line'),
    [
        (5, 1, 'kppppkppp'),
        (5, 2, 'kcpcpkcpc'),
        (5, 3, 'kccpckccp'),
        (50, 3, 'kccpccpcc'),
        (5, 9, 'kcccckccc'),
    ],
)
def test_every_nth_frame_between_key_frames_is_corrected(model, engine, street, interval, correction, line):
    segmenter = VideoSegmenter(model, engine, settings_of(interval, correction))
    found = [segmenter.step(frame) for frame in frames(street[:9])]
    assert kinds(found) == line
    assert [each.is_carried for each in found] == [kind == 'c' for kind in line]


class AgesTold(EngineWrapper):
    """An engine that notes at which age corrections are made."""

    def __init__(self, engine):
        super().__init__(engine)
        self.ages = []

    def run(self, graph, tensors):
        if graph == 'correction':
            self.ages.append(tensors['age'].item())
        return super().run(graph, tensors)


@pytest.mark.parametrize(
    ('settings', 'ages'),
    [
        (settings_of(4, 1), [1, 2, 3, 1, 2, 3, 1]),
        (settings_of(8, 3), [3, 6]),
        # Key frames 4 and 8, in the background, take effect two frames later.
        (
            settings_of(4, 1, background_key_frames=True, background_delay_frames=2),
            [1, 2, 3, 4, 5, 2, 3, 4, 5],
        ),
    ],
)
def test_a_correction_is_told_how_many_frames_its_key_frame_is_back(model, engine, street, settings, ages):
    told = AgesTold(engine)
    with VideoSegmenter(model, told, settings) as segmenter:
        for frame in frames(street[:10]):
            segmenter.step(frame)
    assert told.ages == ages


def test_a_carried_frame_runs_neither_segmenter_nor_correction(model, engine, street):
    segmenter = VideoSegmenter(model, engine, settings_of(9, 9))
    found = [segmenter.step(frame) for frame in frames(street[:2])][1]
    assert list(found.timings_ms) == ['resize', 'flow', 'carry', 'download', 'output']
    assert (found.is_key, found.age_frames, found.corrected_share) == (False, 1, None)
    assert not found.distortion().any()


def test_in_a_scene_that_stands_still_a_carried_frame_is_the_frame_it_is_carried_from(model, engine, street):
    segmenter = VideoSegmenter(model, engine, settings_of(99, 3))
    found = [segmenter.step(frame) for frame in frames([street[0]] * 7)]
    for computed, carried in ((0, (1, 2)), (3, (4, 5))):
        for number in carried:
            assert np.array_equal(found[number].mask, found[computed].mask)
            assert np.array_equal(found[number].confidence, found[computed].confidence)


@pytest.mark.parametrize('motion', ['dis', 'dis_third', 'dis_half'])
def test_a_carried_mask_moves_with_the_picture(model, engine, street, motion):
    height, width = model.image_size
    wide = cv2.resize(street[0], (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
    crops = [wide[8:][:height, left:][:, :width] for left in (20, 28)]  # things go to the left by 8 pixels
    settings = settings_of(9, 9, motion=motion, output_size='network')
    segmenter = VideoSegmenter(model, engine, settings)
    first, second = (segmenter.step(frame).mask for frame in frames(crops))
    pixels = 8 * first.shape[1] // width
    assert second.shape == first.shape
    assert (second[2:-2, 2 : -3 * pixels] == first[2:-2, 2 + pixels : -2 * pixels]).mean() > 0.95


def test_carrying_leaves_the_state_as_it_was(model, engine, street):
    segmenter = VideoSegmenter(model, engine, settings_of(99, 3))
    stream = frames(street[:6])
    segmenter.step(stream[0])
    state = dict(segmenter._state)
    for frame in stream[1:3]:
        segmenter.step(frame)
        assert all(segmenter._state[name] is tensor for name, tensor in state.items())
    segmenter.step(stream[3])
    assert all(segmenter._state[name] is not tensor for name, tensor in state.items())


@given(st.lists(st.sampled_from(['frame'] * 6 + ['request', 'reset', 'other interval']), max_size=30))
@hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_happens_no_frame_is_carried_farther_than_the_interval_says(model, engine, street, actions):
    segmenter, most = VideoSegmenter(model, engine, settings_of(7, 3)), 3
    since = 0
    for number, action in enumerate(actions):
        if action == 'request':
            segmenter.request_key_frame()
        elif action == 'reset':
            segmenter.reset()
        elif action == 'other interval':
            most = 5 - most  # 3 and 2
            segmenter.configure(settings_of(7, most))
        found = segmenter.step(Frame(street[number % len(street)], number * FRAME_NS))
        since = since + 1 if found.is_carried else 0
        assert since < most
        assert action not in ('request', 'reset') or found.is_key


def test_the_model_says_how_often_unless_the_settings_do(model, engine, street):
    says_three = dataclasses.replace(model, correction_interval=3)
    found = VideoSegmenter(says_three, engine, StreamSettings(9))
    assert kinds([found.step(frame) for frame in frames(street[:5])]) == 'kccpc'
    found = VideoSegmenter(says_three, engine, settings_of(9, 1))
    assert kinds([found.step(frame) for frame in frames(street[:5])]) == 'kpppp'


def test_a_frame_without_flow_is_a_key_frame_also_where_it_would_be_carried(
    model, engine, street, monkeypatch
):
    monkeypatch.setattr(dis, 'REACH', 0)  # flow is also found from that of the frame before
    segmenter = VideoSegmenter(model, engine, settings_of(99, 4))
    steps = segmenter._motion._steps
    update, lost = steps.update, []

    def lose(*given):
        flow = update(*given)
        return None if lost else flow

    monkeypatch.setattr(steps, 'update', lose)
    found = [segmenter.step(frame) for frame in frames(street[:3])]
    lost.append(True)
    found.append(segmenter.step(Frame(street[3], 3 * FRAME_NS)))
    lost.clear()
    found += [segmenter.step(Frame(street[n], n * FRAME_NS)) for n in (4, 5)]
    assert kinds(found) == 'kcckcc'
    fresh = VideoSegmenter(model, engine, settings_of(99, 4))
    expected = [fresh.step(frame) for frame in frames(street[3:5])]
    assert np.array_equal(found[4].mask, expected[1].mask), 'it is carried from the new key frame'


def test_regions_are_carried_each_by_itself(model, engine, street):
    segmenter = make_segmenter(model, engine, settings_of(99, 3, regions='2x1'))
    assert kinds([segmenter.step(frame) for frame in frames(street[:6])]) == 'kccpcc'


def test_a_model_without_such_a_step_refuses_to_be_asked_for_it(model, engine, street):
    with pytest.raises(ModelError, match='correction_interval is 2, but tiny has no step'):
        VideoSegmenter(plain(model), engine, settings_of(5, 2))
    segmenter = VideoSegmenter(plain(model), engine, settings_of(5, 1))
    with pytest.raises(ModelError, match='set it to 0 or 1'):
        segmenter.configure(settings_of(5, 2))
    assert kinds([segmenter.step(frame) for frame in frames(street[:3])]) == 'kpp'


def test_a_negative_interval_is_refused():
    with pytest.raises(SettingsError, match='correction_interval is -1; use 0'):
        StreamSettings(correction_interval=-1)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'correction_interval': 0}, 'correction_interval is 0; expected 1 or more'),
        ({'correction_interval': 'often'}, "correction_interval is 'often'"),
        (
            {'steps': {'key': ['segmenter'], 'carried': ['flow', 'carry']}},
            'needs a propagated one',
        ),
        ({'correction_interval': 2, 'steps': 'without carried'}, 'and there is no carried step'),
    ],
)
def test_a_model_that_could_not_carry_is_not_loaded(tiny_model, tmp_path, change, reason):
    shutil.copytree(tiny_model, tmp_path / 'm')
    content = yaml.safe_load((tmp_path / 'm' / MODEL_FILE).read_text())
    if change.get('steps') == 'without carried':
        change = {**change, 'steps': {name: content['steps'][name] for name in ('key', 'propagated')}}
    (tmp_path / 'm' / MODEL_FILE).write_text(yaml.safe_dump({**content, **change}))
    with pytest.raises(ModelError, match=reason):
        load_model(tmp_path / 'm')
